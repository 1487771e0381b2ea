"""Everything that only a GPU can show: ``make test-gpu``. One table: pass or fail, clips a second, peak memory, where the time goes.

Without a GPU it says so and ends with status 0; with ``--rehearse`` the same checks run on the CPU, small, to see that they
themselves work.
"""
# ruff: noqa: E402 (what the tests share is not installed)

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "golden")]

import numpy as np
import rule
import torch
import torch.nn.functional as F
from helpers import Tree, config_of_golden, golden

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.encode.sizes import batch_size
from neurostorm_bids.model import backend
from neurostorm_bids.model import network as networks
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import Masking, of_tokens
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.pretrained import config_of_size, new_autoencoder
from neurostorm_bids.model.scan.dispatch import scan_for
from neurostorm_bids.model.scan.reference import selective_scan
from neurostorm_bids.settings.participant import Resources

COSINE = 0.9999  # of what half precision gives with what single does
KINDS = {  # of kernels, by what their names hold
    "scan": ("_forward", "_backward", "selective_scan"),
    "GEMM": ("gemm", "cutlass", "xmma", "cublas"),
    "transfer": ("memcpy",),
}
CHECKS: list[tuple[str, Callable[["Where"], dict[str, object]]]] = []


@dataclasses.dataclass
class Where:
    """What the checks run on.

    Attributes
    ----------
    device : torch.device
    folder : Path
        For files.
    """

    device: torch.device
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def config(self, **changes: object) -> NeuroSTORMConfig:
        """The base model; in a rehearsal a small one."""
        config = config_of_size(("base",) if self.is_gpu else ("embed_dim=8", "depths=1,1", "img_size=24"))
        return dataclasses.replace(config, **changes)


def check(title: str, *precisions: str) -> Callable:
    """Add a function to the checks, once for each precision if there are some; on a CPU fp16 is bf16."""

    def add(function: Callable) -> Callable:
        def at(precision: str) -> Callable[[Where], dict[str, object]]:
            return lambda where: function(where, precision if where.is_gpu or precision != "fp16" else "bf16")

        CHECKS.extend((f"{title}, {precision}", at(precision)) for precision in precisions)
        if not precisions:
            CHECKS.append((title, function))
        return function

    return add


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0))


def timed(where: Where, step: Callable[[], object], n_clips: int, rounds: int = 10) -> dict[str, object]:
    """Clips a second, peak memory, and the shares of the time that kernels of each kind take."""
    rounds = rounds if where.is_gpu else 1
    step()
    if not where.is_gpu:
        return {"clips a second": "-"}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(rounds):
        step()
    torch.cuda.synchronize()
    rate = rounds * n_clips / (time.perf_counter() - started)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in profile.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")
        times[kind] = times.get(kind, 0.0) + event.self_device_time_total
    total = sum(times.values()) or 1.0
    shares = ", ".join(f"{kind} {times.get(kind, 0.0) / total:.0%}" for kind in (*KINDS, "other"))
    peak = torch.cuda.max_memory_allocated() / 1e9
    return {"clips a second": f"{rate:.1f}", "peak memory (GB)": f"{peak:.2f}", "time": shares}


def scan_inputs(where: Where, n: int, length: int, channels: int) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(length)
    u, delta = torch.randn(2, n, length, channels, generator=rng)
    B, C = torch.randn(2, n, length, 16, generator=rng)
    A = -torch.arange(1.0, 17).repeat(channels, 1)
    return tuple(x.to(where.device) for x in (u, F.softplus(delta - 3), A, B, C))


def compare_scans(where: Where, scan: Callable, sizes: list[tuple[int, int, int]]) -> dict[str, object]:
    """Compare a scan and its gradients with the loop; returns the time of both ways in the first size."""
    worst, took = 0.0, 0.0
    for k, (n, length, channels) in enumerate(sizes):
        arguments = scan_inputs(where, n, length, channels)
        weights = torch.randn(n, length, channels, generator=torch.Generator().manual_seed(1)).to(where.device)
        found = []
        for function in (selective_scan, scan):
            leaves = [x.clone().requires_grad_() for x in arguments]
            y = function(*leaves)
            (y * weights).sum().backward()
            found.append([y.detach(), *(x.grad for x in leaves)])
        for expected, ours in zip(*found, strict=True):
            worst = max(worst, float((ours - expected).abs().max() / expected.abs().max()))
        if k == 0 and where.is_gpu:
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(20):
                leaves = [x.clone().requires_grad_() for x in arguments]
                (scan(*leaves) * weights).sum().backward()
            torch.cuda.synchronize()
            took = (time.perf_counter() - started) / 20
    assert worst < 1e-4, f"differs from the loop by {worst:.1g} of the largest value"
    return {"time": f"{1e3 * took:.1f} ms forward and backward of {sizes[0]}; difference {worst:.1g}"}


# sequences, tokens, channels of every stage of base, narrow and large; with prompts; whole volumes
SIZES = [(320, 256, c) for c in (72, 24, 144)] + [
    (40, 256, 144),
    (5, 256, 288),
    (5, 32, 576),
    (40, 306, 72),
    (3, 37, 40),
]


@check("Triton scan, forward and backward")
def triton(where: Where) -> dict[str, object]:
    if not where.is_gpu:
        return compare_scans(where, scan_for(torch.empty(1)), SIZES[-1:])
    from neurostorm_bids.model.scan.triton_scan import triton_scan

    return compare_scans(where, triton_scan, SIZES)


@check("mamba_ssm's scan")
def mamba(where: Where) -> dict[str, object]:
    from neurostorm_bids.model.scan.dispatch import _from_mamba_ssm

    try:
        scan = _from_mamba_ssm()
    except ImportError:
        return {"time": "not installed"}
    found = compare_scans(where, scan, SIZES[:2])
    network, kept = NeuroSTORM(where.config()).to(where.device).eval(), networks.scan_for
    networks.scan_for = lambda *_: scan
    clips = torch.randn(4, 1, *where.config().img_size, device=where.device)
    try:
        with torch.inference_mode():
            encoder = timed(where, lambda: backend.embed(network, clips, "bf16"), 4)
    finally:
        networks.scan_for = kept
    return {**encoder, "time": f"{found['time']}; encoder bf16: {encoder.get('time')}"}


@check("published encoder, fp32")
def published_encoder(where: Where) -> dict[str, object]:
    about, arrays, weights = golden("encoder_base")
    network = NeuroSTORM(config_of_golden(about))
    network.load_state_dict({name: w for name, w in weights.items() if name in network.state_dict()})
    network.to(where.device).eval()
    clip = torch.from_numpy(rule.clip(about["input"]["seed"], about["input"]["size"])).to(where.device)
    with torch.inference_mode():
        ours = backend.embed(network, clip).cpu().numpy()
        difference = np.abs(ours - arrays["embedding"]).max() / np.abs(arrays["embedding"]).max()
        assert difference < 1e-4, f"embedding differs by {difference:.1g}"
        return timed(where, lambda: backend.embed(network, clip), 1)


@check("published autoencoder, fp32")
def published_autoencoder(where: Where) -> dict[str, object]:
    about, arrays, weights = golden("mae_window_random")
    network = MaskedAutoencoder(config_of_golden(about), Masking("window", about["config"]["mask_ratio"]))
    network.load_state_dict(weights, strict=True)
    network.to(where.device)
    shape = tuple(arrays["mask_shape"])
    hidden = np.unpackbits(arrays["mask"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    hidden = of_tokens(torch.from_numpy(hidden).to(where.device), network.units)
    clip = torch.from_numpy(rule.clip(about["input"]["seed"], about["input"]["size"])).to(where.device)
    with torch.inference_mode():
        loss = float(network.loss(clip, hidden))
    assert abs(loss / float(arrays["loss"]) - 1) < 1e-4, f"loss {loss}, published {float(arrays['loss'])}"
    return {"time": f"loss within {abs(loss / float(arrays['loss']) - 1):.1g}"}


@check("encoder", "bf16", "fp16")
def half_precision(where: Where, precision: str) -> dict[str, object]:
    config = where.config()
    network = new_autoencoder(config, Masking(), 0).model.to(where.device).eval()
    clips = torch.randn(4 if where.is_gpu else 1, 1, *config.img_size, device=where.device)

    def embed(how: str) -> torch.Tensor:
        half = backend.HALF.get(how)
        with torch.inference_mode(), torch.autocast(where.device.type, half, enabled=half is not None):
            return network(clips).flatten(2).float().mean(dim=2)

    found = cosine(embed(precision), embed("fp32"))
    assert found >= COSINE, f"cosine {found:.6f} with fp32"
    return timed(where, lambda: embed(precision), len(clips))


@check("training step", "fp32", "bf16", "fp16")
def training_step(where: Where, precision: str) -> dict[str, object]:
    """A step of the autoencoder: its loss, and what it reconstructs, go with those of fp32; its gradients nearly so."""
    config = where.config()
    network = new_autoencoder(config, Masking(), 0).to(where.device)
    n = 4 if where.is_gpu else 1
    clips = torch.randn(n, 1, *config.img_size, generator=torch.Generator().manual_seed(0)).to(where.device)
    hidden = network.draw(n, torch.Generator().manual_seed(0)).to(where.device)
    scaler = torch.amp.GradScaler(where.device.type, enabled=precision == "fp16" and where.is_gpu)

    def step(how: str) -> tuple[float, torch.Tensor]:
        network.zero_grad()
        half = backend.HALF.get(how)
        with torch.autocast(where.device.type, half, enabled=half is not None):
            loss = network.loss(clips, hidden)
        (scaler.scale(loss) if how == "fp16" else loss).backward()
        gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        return loss.item(), gradients

    (loss, gradients), (expected, theirs) = step(precision), step("fp32")
    assert abs(loss / expected - 1) < 1e-3, f"loss {loss:.6f}, in fp32 {expected:.6f}"
    alike = cosine(gradients, theirs)
    assert alike >= (COSINE if precision == "fp32" else 0.99), f"gradients: cosine {alike:.6f}"
    with torch.inference_mode():
        half = backend.HALF.get(precision)
        with torch.autocast(where.device.type, half, enabled=half is not None):
            ours = network(clips, hidden).patches
        made = cosine(ours, network(clips, hidden).patches)
    assert made >= COSINE, f"reconstruction: cosine {made:.6f}"
    found = timed(where, lambda: step(precision), n)
    return {**found, "time": f"{found.get('time', '')}; cosine of gradients {alike:.5f}"}


@check("batches as large as memory allows")
def memory(where: Where) -> dict[str, object]:
    model = load_model("demo", where.device.type)
    if where.is_gpu:
        model = dataclasses.replace(model, network=NeuroSTORM(where.config()).to(where.device).eval())
    n = batch_size(model, Resources())
    with torch.inference_mode():
        clips = torch.randn(n, 1, *model.network.config.img_size, device=where.device)
        found = timed(where, lambda: backend.embed(model.network, clips, "bf16"), n, rounds=2)
    return {**found, "time": f"{n} clips at a time; {found.get('time', '')}"}


@check("transfer from pinned memory")
def transfer(where: Where) -> dict[str, object]:
    frames = torch.zeros(8, 20, 96, 96, 96, dtype=torch.int8)
    frames = frames.pin_memory() if where.is_gpu else frames
    found = timed(where, lambda: frames.to(where.device, non_blocking=True), len(frames))
    assert not where.is_gpu or float(found["clips a second"]) > 100, "fewer than 100 clips a second"  # type: ignore[arg-type]
    return found


def command(where: Where, *words: object) -> str:
    """Run neurostorm; returns what it says."""
    device = ("--device", where.device.type)
    call = [Path(sys.executable).with_name("neurostorm"), *map(str, words), *device]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    return done.stderr


def people(where: Where) -> Path:
    """A data set of twelve people."""
    tree, rng = Tree(where.folder / "fmriprep"), np.random.RandomState(0)
    if not (tree.path / "sub-11").exists():
        for i in range(12):
            data = 1000 + 100 * rng.standard_normal((32, 38, 32, 1)) + 30 * rng.standard_normal((32, 38, 32, 44))
            tree.run(
                f"sub-{i:02d}_task-rest", data=data.astype(np.float32), repetition_time=0.8, header_repetition_time=0.8
            )
        rows = [f"sub-{i:02d}\t{'ab'[i % 2]}" for i in range(12)]
        (tree.path / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *rows, ""]))
    return tree.path


@check("participant level")
def participant(where: Where) -> dict[str, object]:
    """The embeddings of the GPU are those of the CPU."""
    data, found = people(where), []
    for device in (where.device.type, "cpu"):
        there = Where(torch.device(device), where.folder)
        out = where.folder / f"out-{device}"
        command(there, data, out, "participant", "--model", "demo", "--participant-label", "00")
        found.append(channels_of(read_table(next(out.rglob("sub-00*_embeddings.tsv")))))
    difference = np.abs(found[0] - found[1]).max() / np.abs(found[1]).max()
    assert difference < 1e-3, f"embeddings differ by {difference:.1g}"
    return {"time": f"difference from the CPU {difference:.1g}"}


@check("fine-tuning, one epoch")
def finetuning(where: Where) -> dict[str, object]:
    words = ("--target", "group", "--tuning", "lora", "--epochs", 1, "--n-permutations", 0, "--model", "demo")
    command(
        where, people(where), where.folder / "tuned", "group", "--group-task", "finetune", *words, "--save-as", "tuned"
    )
    return {}


def pretrain(where: Where, name: str, *words: object) -> str:
    size = ("base",) if where.is_gpu else ("embed_dim=4", "depths=1,1", "img_size=24")
    call = ("group", "--group-task", "pretrain", "--size", *size, "--epochs", 1, "--save-as", name)
    return command(where, people(where), where.folder / "pretrained", *call, *words)


@check("pretraining, one epoch, bf16")
def pretraining(where: Where) -> dict[str, object]:
    said = pretrain(where, "mae", "--precision", "bf16" if where.is_gpu else "fp32", "--objective", "mae+contrastive")
    rate = said.rpartition("clips per second ")[2].split()[0].rstrip(",")
    return {"clips a second": rate}


@check("two processes train as one")
def two_processes(where: Where) -> dict[str, object]:
    """On two GPUs if they are there; else on processors, where gloo joins them."""
    n = torch.cuda.device_count() if where.is_gpu else 0
    there = where if n > 1 else Where(torch.device("cpu"), where.folder)
    same = ("--augmentation", "none", "--hidden", "random", "--objective", "mae+contrastive", "--contrast", "instance")
    pretrain(there, "one", "--batch-size", 4, *same)
    pretrain(there, "two", "--batch-size", 2, "--devices", 2, *same)
    losses = [
        read_table(where.folder / "pretrained" / "models" / name / "history.tsv")["train_loss"].to_numpy()
        for name in ("one", "two")
    ]
    difference = float(np.abs(losses[0] / losses[1] - 1).max())
    assert difference < 1e-3, f"losses differ by {difference:.1g}"
    return {"time": f"{'two GPUs' if n > 1 else 'gloo, processors'}; losses within {difference:.1g}"}


def main() -> int:
    """Run all checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="run the checks on the CPU, small")
    rehearse = parser.parse_args().rehearse
    if not torch.cuda.is_available() and not rehearse:
        print("PyTorch sees no GPU here: nothing is checked")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    columns, n_failed = ("clips a second", "peak memory (GB)", "time"), 0
    name = "CPU, a rehearsal" if rehearse else torch.cuda.get_device_name()
    print(
        f"{name}; PyTorch {torch.__version__}\n\n| check | result | {' | '.join(columns)} | seconds |\n|{'---|' * 6}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        where = Where(torch.device("cpu" if rehearse else "cuda"), Path(folder))
        for title, function in CHECKS:
            started, result = time.perf_counter(), "pass"
            try:
                found = function(where)
            except Exception as error:
                found, result, n_failed = {}, f"FAIL: {type(error).__name__}: {error}".replace("\n", " "), n_failed + 1
            cells = [str(found.get(column, "")) for column in columns]
            print(f"| {title} | {result} | {' | '.join(cells)} | {time.perf_counter() - started:.0f} |", flush=True)
            if where.is_gpu:
                torch.cuda.empty_cache()
    print(f"\n{len(CHECKS) - n_failed} of {len(CHECKS)} passed")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
