/* Interpolate a volume at points that an affine map and a shift along one axis lead to: what every volume of a raw series
 * needs anew, since the head moves. The volume is padded with zeros, x fastest; nothing is read outside of it. Each call
 * works on one volume, on one thread: the caller splits the volumes over its threads. gather.py says what is computed.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <math.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define EXPORT __attribute__((visibility("default")))

/* where a point lies: the nearest voxel below along each axis, and how far beyond it */
static inline int locate(const float *point, float shift, int axis, const double *map, const int64_t *size, int64_t before,
                         int64_t after, int64_t *at, float *beyond)
{
    for (int i = 0; i < 3; i++) {
        double x = map[4 * i] * point[0] + map[4 * i + 1] * point[1] + map[4 * i + 2] * point[2] + map[4 * i + 3];
        if (i == axis)
            x += shift;
        double below = floor(x);
        if (!(below - before >= 0 && below + after < size[i]))
            return 0;
        at[i] = (int64_t)below;
        beyond[i] = (float)(x - below);
    }
    return 1;
}

FOR_EACH_PROCESSOR EXPORT void neurostorm_gather_linear(const float *volume, const int64_t *size, const float *points,
                                                        const float *shift, int64_t axis, const double *map, int64_t n, float *out)
{
    const int64_t row = size[0], slab = size[0] * size[1];
    for (int64_t p = 0; p < n; p++) {
        int64_t at[3];
        float f[3];
        if (!locate(points + 3 * p, shift ? shift[p] : 0, (int)axis, map, size, 0, 1, at, f)) {
            out[p] = 0;
            continue;
        }
        const float *v = volume + at[0] + row * at[1] + slab * at[2];
        float a = v[0] + f[0] * (v[1] - v[0]), b = v[row] + f[0] * (v[row + 1] - v[row]);
        float c = v[slab] + f[0] * (v[slab + 1] - v[slab]);
        float d = v[slab + row] + f[0] * (v[slab + row + 1] - v[slab + row]);
        a += f[1] * (b - a);
        c += f[1] * (d - c);
        out[p] = a + f[2] * (c - a);
    }
}

static inline void cubic_weights(float t, float *w)
{
    const float u = 1 - t;
    w[0] = u * u * u / 6;
    w[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
    w[2] = (3 * u * u * u - 6 * u * u + 4) / 6;
    w[3] = t * t * t / 6;
}

/* of B-spline coefficients */
FOR_EACH_PROCESSOR EXPORT void neurostorm_gather_cubic(const float *volume, const int64_t *size, const float *points,
                                                       const float *shift, int64_t axis, const double *map, int64_t n, float *out)
{
    const int64_t row = size[0], slab = size[0] * size[1];
    for (int64_t p = 0; p < n; p++) {
        int64_t at[3];
        float f[3], w[3][4], along[4] = {0, 0, 0, 0};
        if (!locate(points + 3 * p, shift ? shift[p] : 0, (int)axis, map, size, 1, 2, at, f)) {
            out[p] = 0;
            continue;
        }
        for (int i = 0; i < 3; i++)
            cubic_weights(f[i], w[i]);
        const float *v = volume + at[0] - 1 + row * (at[1] - 1) + slab * (at[2] - 1);
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 4; j++) {
                const float weight = w[2][k] * w[1][j], *x = v + k * slab + j * row;
                for (int i = 0; i < 4; i++)
                    along[i] += weight * x[i];
            }
        out[p] = along[0] * w[0][0] + along[1] * w[0][1] + along[2] * w[0][2] + along[3] * w[0][3];
    }
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_gather", 0, -1, 0};

PyMODINIT_FUNC PyInit__gather(void) { return PyModule_Create(&module); }
