"""Train the small model that ships with Parlor, from nothing, on this machine.

    python -m tools.train_starter --minutes 90 --workers 2 --out build/starter

Writes its own corpus (tools/starter/corpus), trains a tokenizer and a Llama model, and saves what
transformers and our engine load: config.json, model.safetensors (bfloat16), tokenizer.model,
tokenizer_config.json with the chat template, generation_config.json, training_log.json and loss.png.
Then: python -m model.quantize build/starter starter --bits 4 --group-size 64
"""

import argparse
import json
import math
import platform
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from model.options import path_option
from tools.starter.batches import batches, to_batch, weigh
from tools.starter.corpus import documents
from tools.starter.muon import build_optimizers, sum_over_workers
from tools.starter.network import Shape, StarterNetwork
from tools.starter.tokenizer import Encoder, train_tokenizer, write_tokenizer_config

HELD_OUT_SEED = 20_000_003  # no training run uses it, nor the next one
CALIBRATION_SEED = 40_000_003
HELD_OUT_BYTES, CALIBRATION_BYTES = 190_000, 1_000_000
TOKENIZER_SEED = 7


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Its schedule follows the clock, or the steps where `steps` says how many."""

    minutes: float = 60.0
    steps: int = 0
    out: Path = Path("build/starter")
    resume: bool = False
    warm_start: Path | None = None
    device: str = "cpu"
    seed: int = 1
    tokens_per_batch: int = 3072
    lr_scale: float = 1.0
    rank: int = 0
    workers: int = 1
    shape: Shape = field(default_factory=Shape)


@dataclass
class TrainLog:
    """What happened, for training_log.json."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)


def schedule(progress: float) -> float:
    """Learning-rate factor at a part 0..1 of the run: a short warm-up, then a cosine down to 2%."""
    if progress < 0.02:
        return max(progress / 0.02, 0.02)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.02) / 0.98)))


class Trainer:
    """Network, optimizers and log; `run` trains until the clock says so.

    Several workers are processes of one thread each with a batch of their own, which average their gradients:
    on a few busy CPU cores that is faster than threads that wait for each other at every operation.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        config.out.mkdir(parents=True, exist_ok=True)
        tokenizer_path = config.out / "tokenizer.model"
        if not tokenizer_path.exists():  # several workers find it there: main() trains it first
            train_tokenizer(tokenizer_path, TOKENIZER_SEED)
        self.encoder = Encoder(tokenizer_path)
        self.network = StarterNetwork(config.shape).to(config.device)
        self.optimizers = build_optimizers(self.network, config.rank, config.workers)
        self.log = TrainLog()
        if config.resume:
            self.load_state()
        elif config.warm_start:
            self.take_over(config.warm_start)
        held_out = [weigh(self.encoder, doc) for doc in documents(HELD_OUT_SEED, 96)]
        held_out.sort(key=lambda row: len(row[0]))
        self.held_out = [to_batch(held_out[start : start + 24]) for start in range(0, 96, 24)]

    def run(self) -> None:
        config, start, last_saved = self.config, time.monotonic(), time.monotonic()
        self.log.runs.append(
            {
                "minutes": config.minutes,
                "seed": config.seed,
                "lr_scale": config.lr_scale,
                "tokens_per_batch": config.tokens_per_batch,
                "workers": config.workers,
                "machine": platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(),
                "torch": str(torch.__version__),
            }
        )
        source = batches(
            self.encoder,
            config.seed + self.log.steps * 1000 + config.rank,
            config.tokens_per_batch // config.workers,
        )
        elapsed, loss, first = 0.0, math.nan, self.log.steps
        with tqdm(
            total=round(config.minutes * 60), unit="s", desc="training", disable=config.rank > 0
        ) as bar:
            while True:
                elapsed = self.agreed(time.monotonic() - start)
                done = (
                    (self.log.steps - first) / config.steps
                    if config.steps
                    else elapsed / (config.minutes * 60)
                )
                if done >= 1:
                    break
                loss = self.step(*next(source), config.lr_scale * schedule(done))
                if config.rank > 0:
                    continue
                bar.n = min(bar.total, round(elapsed))
                bar.set_postfix(
                    step=self.log.steps, loss=f"{loss:.3f}", tokens=f"{self.log.tokens / 1e6:.1f}M"
                )
                if self.log.steps % 10 == 0:
                    self.record(self.log.seconds + elapsed, loss, evaluate=self.log.steps % 200 == 0)
                if time.monotonic() - last_saved > 240:
                    self.save(self.log.seconds + elapsed)
                    last_saved = time.monotonic()
        if config.rank == 0:
            self.record(self.log.seconds + elapsed, loss, evaluate=True)
            self.save(self.log.seconds + elapsed)

    def record(self, seconds: float, loss: float, evaluate: bool) -> None:
        row = {
            "step": self.log.steps,
            "seconds": round(seconds, 1),
            "tokens": self.log.tokens,
            "loss": round(loss, 4),
        }
        self.log.rows.append({**row, **(self.evaluate() if evaluate else {})})

    def agreed(self, seconds: float) -> float:
        """The first worker's clock, so that all of them end at the same step."""
        if self.config.workers == 1:
            return seconds
        clock = torch.tensor([seconds], dtype=torch.float64)
        torch.distributed.broadcast(clock, 0)
        return float(clock)

    def average_gradients(self) -> None:
        """The mean over the workers, sent as one tensor."""
        parameters = list(self.network.parameters())
        for parameter, total in zip(
            parameters, sum_over_workers([parameter.grad for parameter in parameters]), strict=True
        ):
            parameter.grad = total / self.config.workers

    def step(self, tokens: torch.Tensor, weights: torch.Tensor, factor: float) -> float:
        """One batch. Returns its loss."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        with torch.autocast(self.config.device, torch.bfloat16):
            loss = self.network.loss(tokens.to(self.config.device), weights.to(self.config.device))
        loss.backward()
        if self.config.workers > 1:
            self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.log.steps += 1
        self.log.tokens += (
            int((weights > 0).sum()) * self.config.workers
        )  # the others' batches are about as large
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss on held-out documents: of the replies alone, and of every token alike."""
        totals = {"held_out_reply_loss": [0.0, 0.0], "held_out_loss": [0.0, 0.0]}
        for tokens, weights in self.held_out:
            tokens, weights = tokens.to(self.config.device), weights.to(self.config.device)
            for name, chosen in (
                ("held_out_reply_loss", (weights == 1).float()),
                ("held_out_loss", (weights > 0).float()),
            ):
                count = float(chosen[:, 1:].sum())
                with torch.autocast(self.config.device, torch.bfloat16):
                    totals[name][0] += float(self.network.loss(tokens, chosen)) * count
                totals[name][1] += count
        return {name: round(total / count, 4) for name, (total, count) in totals.items()}

    def save(self, seconds: float) -> None:
        """Everything a loader needs, the log with its picture, and the state that --resume reads."""
        out = self.config.out
        tensors = {
            name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        bos, eos = self.encoder.special["<s>"], self.encoder.special["</s>"]
        write_json(out / "config.json", self.config.shape.to_config(bos, eos))
        write_json(out / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})
        write_tokenizer_config(out, self.encoder)
        log = {
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "steps": self.log.steps,
            "tokens": self.log.tokens,
            "seconds": round(seconds),
            "runs": self.log.runs,
            "rows": self.log.rows,
        }
        write_json(out / "training_log.json", log, indent=None)
        draw_loss(log, out / "loss.png")
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "log": {**vars(self.log), "seconds": seconds},
            },
            out / "train_state.pt",
        )

    def load_state(self) -> None:
        state = torch.load(
            self.config.out / "train_state.pt", map_location=self.config.device, weights_only=True
        )
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.log = TrainLog(**state["log"])

    @torch.no_grad()
    def take_over(self, folder: Path) -> None:
        """Begin with another run's weights: a piece new to the tokenizer gets the mean of its parts."""
        old = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        rows = old.pop("model.embed_tokens.weight")
        before, now = Encoder(folder / "tokenizer.model").pieces, self.encoder.pieces
        for piece in range(now.get_piece_size()):
            name = now.id_to_piece(piece)
            same = before.piece_to_id(name)
            parts = [same] if same or not piece else before.encode(name.replace("\u2581", " "))
            self.network.model.embed_tokens.weight[piece] = rows[parts].mean(0)
        self.network.load_state_dict(old, strict=False)
        log = json.loads((folder / "training_log.json").read_text())
        log.pop("parameters")
        self.log = TrainLog(**log)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def draw_loss(log: dict[str, Any], path: Path) -> None:
    """The loss curve as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=100)
    rows = log["rows"]
    axes.plot(
        [row["tokens"] / 1e6 for row in rows],
        [row["loss"] for row in rows],
        lw=0.7,
        alpha=0.6,
        label="training (weighted)",
    )
    for key, label in (
        ("held_out_reply_loss", "held-out, replies"),
        ("held_out_loss", "held-out, every token"),
    ):
        points = [row for row in rows if key in row]
        axes.plot(
            [row["tokens"] / 1e6 for row in points], [row[key] for row in points], marker=".", label=label
        )
    axes.set(
        xlabel="million tokens",
        ylabel="cross-entropy (nats a token)",
        yscale="log",
        title=f"Starter: {log['parameters'] / 1e6:.1f} M parameters, {log['seconds'] / 60:.0f} min",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def write_corpus(path: Path, seed: int, limit: int) -> None:
    """Documents of a seed, rendered, one after the other (each begins with <s>), up to `limit` bytes."""
    parts: list[str] = []
    size = 0
    for doc in documents(seed, limit // 200):
        size += len(doc.text.encode())
        if size > limit:
            break
        parts.append(doc.text)
    path.write_text("".join(parts), encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="wall-clock minutes to train (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=0, help="train this many steps instead of --minutes")
    parser.add_argument(
        "--out", type=path_option, default=Path("build/starter"), help="folder to write (default %(default)s)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the state saved in --out, with a new schedule"
    )
    parser.add_argument(
        "--warm-start",
        type=path_option,
        metavar="FOLDER",
        help="begin with the weights of another run (its tokenizer may differ)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of corpus and weights (default %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes of one thread each, for CPUs: as many as cores (default %(default)s)",
    )
    parser.add_argument(
        "--lr-scale",
        type=float,
        default=1.0,
        help="factor on every learning rate; below 1 to resume gently (default %(default)s)",
    )
    parser.add_argument("--batch-tokens", type=int, default=3072, help="tokens a step (default %(default)s)")
    parser.add_argument(
        "--write-heldout",
        type=path_option,
        metavar="FILE",
        help="only write the held-out text (for tools.perplexity) and stop",
    )
    parser.add_argument(
        "--write-calibration",
        type=path_option,
        metavar="FILE",
        help="only write text to calibrate a quantizer with, and stop; --out gets one, too",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.write_heldout:
        write_corpus(args.write_heldout, HELD_OUT_SEED, HELD_OUT_BYTES)
        return
    if args.write_calibration:
        write_corpus(args.write_calibration, CALIBRATION_SEED, CALIBRATION_BYTES)
        return
    config = TrainConfig(
        minutes=args.minutes,
        steps=args.steps,
        out=args.out,
        resume=args.resume,
        warm_start=args.warm_start,
        device=args.device,
        seed=args.seed,
        tokens_per_batch=args.batch_tokens,
        lr_scale=args.lr_scale,
        workers=args.workers,
    )
    config.out.mkdir(parents=True, exist_ok=True)
    if not (config.out / "tokenizer.model").exists():
        print("training the tokenizer", flush=True)
        train_tokenizer(config.out / "tokenizer.model", TOKENIZER_SEED)
    write_corpus(config.out / "calibration.txt", CALIBRATION_SEED, CALIBRATION_BYTES)
    if config.workers == 1:
        Trainer(config).run()
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            run_worker, (config, (Path(folder) / "meeting").as_uri()), nprocs=config.workers
        )


def run_worker(rank: int, config: TrainConfig, meeting: str) -> None:
    """One of several training processes on the CPU."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.workers)
    Trainer(replace(config, rank=rank)).run()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
