/* The two steps of Mamba that PyTorch has no quick operation for on a CPU: the causal depthwise convolution, and the
 * selective scan with everything that surrounds it. Each call works on a range of sequences, on one thread: the caller
 * splits the sequences over its threads. Plain C with vector types; on x86-64 Linux the loader picks the version for
 * the processor. The numbers are those of reference.py, which says what is computed.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define MAX_STATES 256

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define EXPORT __attribute__((visibility("default")))

INLINE vec splat(float x) { return x - (vec){0}; }

/* n values from memory, the lanes beyond them 0 */
INLINE vec load(const float *from, int64_t n)
{
    vec v = {0};
    if (n >= LANES)
        memcpy(&v, from, sizeof v);
    else
        memcpy(&v, from, (size_t)n * 4);
    return v;
}

INLINE void store(float *to, vec v, int64_t n)
{
    if (n >= LANES)
        memcpy(to, &v, sizeof v);
    else
        memcpy(to, &v, (size_t)n * 4);
}

/* of NaN and a number: NaN */
INLINE vec smaller(vec a, vec b) { ivec m = a >= b; return (vec)(((ivec)b & m) | ((ivec)a & ~m)); }
INLINE vec larger(vec a, vec b) { ivec m = a <= b; return (vec)(((ivec)b & m) | ((ivec)a & ~m)); }

/* exp to 1 unit in the last place or two: x = n ln 2 + r, a polynomial in r (Cephes), and n put into the exponent */
INLINE vec vexp(vec x)
{
    x = larger(smaller(x, splat(88.3f)), splat(-87.3f));
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the sum's last bits are the rounded integer */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

INLINE vec silu(vec x)
{
    x = larger(x, splat(-88.0f)); /* 0 from there on, as exp(-x) overflows */
    return x / (1.0f + vexp(-x));
}

/* out[s, t, :] = silu(bias + sum_k weight[k, :] * in[s, t - taps + 1 + k, :]), zeros before the start.
 * in: rows of `row` floats, of which the first `channels` are read; out: rows of `channels`; weight: (taps, channels).
 */
FOR_EACH_PROCESSOR EXPORT void neurostorm_conv_silu(
    const float *in, int64_t row, const float *weight, const float *bias, float *out,
    int64_t sequences, int64_t length, int64_t channels, int64_t taps)
{
    for (int64_t s = 0; s < sequences; s++) {
        const float *x = in + s * length * row;
        float *y = out + s * length * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t n = channels - c;
            vec b = load(bias + c, n);
            for (int64_t t = 0; t < length; t++) {
                vec sum = b;
                for (int64_t k = (t + 1 < taps ? taps - 1 - t : 0); k < taps; k++)
                    sum += load(weight + k * channels + c, n) * load(x + (t - taps + 1 + k) * row + c, n);
                store(y + t * channels + c, silu(sum), n);
            }
        }
    }
}

/* The scan of LANES channels of one sequence; `states` is a constant wherever the compiler is to unroll. */
INLINE void scan_lanes(
    const float *u, const float *delta, const float *A, const float *bc, int64_t bc_row, const float *D,
    const float *gate, int64_t gate_row, float *y, int64_t length, int64_t channels, int64_t n, int64_t states)
{
    vec h[MAX_STATES], a[MAX_STATES], skip = load(D, n);
    for (int64_t i = 0; i < states; i++) {
        h[i] = splat(0.0f);
        a[i] = load(A + i * channels, n);
    }
    for (int64_t t = 0; t < length; t++) {
        vec in = load(u + t * channels, n), step = load(delta + t * channels, n);
        vec drive = step * in, sum = skip * in;
        const float *B = bc + t * bc_row, *C = B + states;
        for (int64_t i = 0; i < states; i++) {
            h[i] = vexp(step * a[i]) * h[i] + drive * B[i];
            sum += h[i] * C[i];
        }
        if (gate)
            sum *= silu(load(gate + t * gate_row, n));
        store(y + t * channels, sum, n);
    }
}

/* y = (scan(u, delta, A, B, C) + D u) * silu(gate), for `sequences` sequences.
 * u, delta, y: (sequences, length, channels). A: (states, channels). bc: rows of `bc_row` floats, B in the first
 * `states` and C in the next. gate: rows of `gate_row` floats, or null.
 */
FOR_EACH_PROCESSOR EXPORT void neurostorm_scan(
    const float *u, const float *delta, const float *A, const float *bc, int64_t bc_row, const float *D,
    const float *gate, int64_t gate_row, float *y,
    int64_t sequences, int64_t length, int64_t channels, int64_t states)
{
    for (int64_t s = 0; s < sequences; s++) {
        int64_t at = s * length * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t n = channels - c;
            const float *g = gate ? gate + s * length * gate_row + c : 0;
            if (states == 16)
                scan_lanes(u + at + c, delta + at + c, A + c, bc + s * length * bc_row, bc_row, D + c, g, gate_row,
                           y + at + c, length, channels, n, 16);
            else
                scan_lanes(u + at + c, delta + at + c, A + c, bc + s * length * bc_row, bc_row, D + c, g, gate_row,
                           y + at + c, length, channels, n, states);
        }
    }
}

INLINE float sum_of(vec v)
{
    typedef float half __attribute__((vector_size(2 * LANES)));
    typedef float quarter __attribute__((vector_size(LANES)));
    half h[2];
    memcpy(h, &v, sizeof v);
    h[0] += h[1];
    quarter q[2];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][1]) + (q[0][2] + q[0][3]);
}

/* The gradient of the scan (without skip and gate) of LANES channels of one sequence. before: room for the states before
 * every token, which are computed again here. dbc is added to, and so is da.
 */
INLINE void scan_backward_lanes(
    const float *u, const float *delta, const float *A, const float *bc, const float *dy, float *du, float *ddelta,
    float *dA, float *dbc, vec *before, int64_t length, int64_t channels, int64_t n, int64_t states)
{
    vec h[MAX_STATES], a[MAX_STATES], da[MAX_STATES];
    for (int64_t i = 0; i < states; i++) {
        h[i] = da[i] = splat(0.0f);
        a[i] = load(A + i * channels, n);
    }
    for (int64_t t = 0; t < length; t++) {
        vec step = load(delta + t * channels, n), drive = step * load(u + t * channels, n);
        const float *B = bc + t * 2 * states;
        for (int64_t i = 0; i < states; i++) {
            before[t * states + i] = h[i];
            h[i] = vexp(step * a[i]) * h[i] + drive * B[i];
        }
    }
    vec dh[MAX_STATES];
    for (int64_t i = 0; i < states; i++)
        dh[i] = splat(0.0f);
    for (int64_t t = length - 1; t >= 0; t--) {
        vec in = load(u + t * channels, n), step = load(delta + t * channels, n), g = load(dy + t * channels, n);
        vec drive = step * in, through = splat(0.0f), of_step = splat(0.0f);
        const float *B = bc + t * 2 * states, *C = B + states;
        float *dB = dbc + t * 2 * states, *dC = dB + states;
        for (int64_t i = 0; i < states; i++) {
            vec decay = vexp(step * a[i]), decayed = decay * before[t * states + i];
            dh[i] += g * C[i];
            dC[i] += sum_of((decayed + drive * B[i]) * g);
            dB[i] += sum_of(dh[i] * drive);
            vec of_decay = dh[i] * decayed;
            through += dh[i] * B[i];
            of_step += of_decay * a[i];
            da[i] += of_decay * step;
            dh[i] *= decay;
        }
        store(du + t * channels, step * through, n);
        store(ddelta + t * channels, of_step + in * through, n);
    }
    for (int64_t i = 0; i < states; i++)
        store(dA + i * channels, load(dA + i * channels, n) + da[i], n);
}

/* Gradients of y = scan(u, delta, A, B, C) for `sequences` sequences, given dy; layouts as of neurostorm_scan, bc in
 * rows of 2 states. dA and dbc begin as 0. room: length * states * LANES floats.
 */
FOR_EACH_PROCESSOR EXPORT void neurostorm_scan_backward(
    const float *u, const float *delta, const float *A, const float *bc, const float *dy, float *du, float *ddelta,
    float *dA, float *dbc, float *room, int64_t sequences, int64_t length, int64_t channels, int64_t states)
{
    vec *before = (vec *)(((uintptr_t)room + sizeof(vec) - 1) / sizeof(vec) * sizeof(vec));
    for (int64_t s = 0; s < sequences; s++) {
        int64_t at = s * length * channels, at_bc = s * length * 2 * states;
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t n = channels - c;
            if (states == 16)
                scan_backward_lanes(u + at + c, delta + at + c, A + c, bc + at_bc, dy + at + c, du + at + c,
                                    ddelta + at + c, dA + c, dbc + at_bc, before, length, channels, n, 16);
            else
                scan_backward_lanes(u + at + c, delta + at + c, A + c, bc + at_bc, dy + at + c, du + at + c,
                                    ddelta + at + c, dA + c, dbc + at_bc, before, length, channels, n, states);
        }
    }
}

/* A Python module with nothing in it: it is how the library is built and found; ctypes calls the functions. */
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", 0, -1, 0, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
