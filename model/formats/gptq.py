"""GPTQ checkpoints (AutoGPTQ, gptqmodel, auto-round, GPTQ-for-LLaMa): 2, 3, 4 or 8 bits.

For a Linear with k inputs and n outputs the file holds
  qweight  int32 [k * bits / 32, n]       codes along k, lowest bits first, one continuous stream of bits
  qzeros   int32 [groups, n * bits / 32]  zero points along n, packed alike; version 1 stores zero - 1
  scales   float16 [groups, n]
  g_idx    int32 [k]                      the group of each input; any order under act-order (desc_act)
  bias     [n], optional
Bits and group size follow from the shapes and from g_idx, so modules that differ from the rest (gptqmodel's
`dynamic`, an 8-bit lm_head) need no pattern matching; a module that has a plain `weight` was left as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError
from model.formats.plain import PlainReader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, Matrix, MatrixInfo, QuantizedMatrix

SUPPORTED_BITS = (2, 3, 4, 8)
_SCALE_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_BYTES_PER_GROUP = 4  # scale and zero point, float16 each


class GptqReader(PlainReader):
    """Quantized modules, and plain ones beside them. `settings` is config.json's quantization_config."""

    def __init__(self, folder: TensorFolder, settings: dict[str, Any]) -> None:
        super().__init__(folder)
        self.bits = settings.get("bits")
        if self.bits not in SUPPORTED_BITS or isinstance(self.bits, bool):
            raise ModelLoadError(f"GPTQ with bits {shown(self.bits)}; supported: 2, 3, 4 and 8")
        self.group_size = _group_size(settings.get("group_size", 128))
        version = settings.get("checkpoint_format", settings.get("format", "gptq"))
        if version not in ("gptq", "gptq_v2"):
            raise ModelLoadError(f"GPTQ with checkpoint_format {shown(version)}; supported: gptq and gptq_v2")
        self.zero_offset = 1 if version == "gptq" else 0
        self.act_order = settings.get("desc_act") is True
        overrides = settings.get("dynamic") or {}
        values = overrides.values() if isinstance(overrides, dict) else ()
        self.group_sizes = {self.group_size} | {
            _group_size(o["group_size"]) for o in values if isinstance(o, dict) and "group_size" in o}

    def describe(self) -> str:
        group = "per column" if self.group_size == -1 else f"g{self.group_size}"
        return f"{self.bits}-bit GPTQ {group}" + (" act-order" if self.act_order else "")

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return super().matrix_info(name, n, k)
        self._check_bias(name, n)
        bits, groups = self._check_shapes(name, n, k)
        kept = 8 if bits == 8 else 4
        return MatrixInfo(f"q{kept}", n * k * kept // 8 + n * groups * _BYTES_PER_GROUP)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return super().matrix(name, n, k, device)
        bits, groups = self._check_shapes(name, n, k)
        group_size, perm = self._groups(name, k, groups)
        codes = unpack(self.folder.read(name + ".qweight").to(device).t().contiguous(), bits)
        if perm is not None:
            perm = perm.to(device)
            codes = codes.index_select(1, perm)
        zeros = unpack_zeros(self.folder.read(name + ".qzeros").to(device), bits, self.zero_offset)
        scales = self.folder.read(name + ".scales").to(torch.float16)
        if not torch.isfinite(scales).all():
            raise ModelLoadError(f"{name}.scales holds numbers that are not finite in float16")
        return QuantizedMatrix(codes, scales.to(device).t().contiguous(), zeros.t().contiguous(), group_size,
                               8 if bits == 8 else 4, perm, self.bias(name, n, device))

    def _check_shapes(self, name: str, n: int, k: int) -> tuple[int, int]:
        """(bits, groups) of a module, from the shapes of its tensors. Raises ModelLoadError."""
        qweight = self.folder.info(name + ".qweight")
        bits = next((b for b in SUPPORTED_BITS if k * b % 32 == 0 and qweight.shape == (k * b // 32, n)),
                    None)
        if bits is None or qweight.dtype != torch.int32:
            raise ModelLoadError(f"{qweight.path.name}: {name}.qweight is {qweight.dtype} "
                                 f"{list(qweight.shape)}; expected int32 [{k} * bits / 32, {n}] with "
                                 "2, 3, 4 or 8 bits")
        scales = self.folder.info(name + ".scales")
        groups = scales.shape[0] if scales.shape else 0
        if not 1 <= groups <= k:
            raise ModelLoadError(f"{name}.scales has {groups} groups; expected 1 to {k}")
        self.folder.check(name + ".scales", (groups, n), _SCALE_TYPES)
        if n * bits % 32:
            raise ModelLoadError(f"{name} has {n} outputs of {bits} bits; its zero points do not fill words")
        self.folder.check(name + ".qzeros", (groups, n * bits // 32), (torch.int32,))
        if name + ".g_idx" in self.folder:
            self.folder.check(name + ".g_idx", (k,), (torch.int32, torch.int64))
        return bits, groups

    def _groups(self, name: str, k: int, groups: int) -> tuple[int, Tensor | None]:
        """(group size, order of the inputs that sorts them by group, or None if they are sorted)."""
        index = self.folder.read(name + ".g_idx").long() if name + ".g_idx" in self.folder else None
        if index is None or not index.any():  # no act-order; some tools write zeros then
            return self._configured_group_size(name, k, groups), None
        return sorted_groups(name + ".g_idx", index, groups)

    def _configured_group_size(self, name: str, k: int, groups: int) -> int:
        if groups == 1:
            return k
        fitting = [size for size in self.group_sizes if size != -1 and -(-k // size) == groups]
        if len(fitting) != 1:
            raise ModelLoadError(f"{name} has {groups} groups for {k} inputs and no g_idx; the group "
                                 f"sizes of quantization_config, {sorted(self.group_sizes)}, do not fit")
        return fitting[0]


def sorted_groups(name: str, index: Tensor, groups: int) -> tuple[int, Tensor | None]:
    """(group size, order of the inputs that sorts them by group, or None if they are sorted).

    index  int64 [k], the group of each input; `name` is the tensor's

    Raises ModelLoadError unless the groups are of one size.
    """
    if int(index.min()) < 0 or int(index.max()) >= groups:
        raise ModelLoadError(f"{name} names groups {int(index.min())} to {int(index.max())}; expected 0 to "
                             f"{groups - 1}")
    size = int((index == 0).sum())
    order = torch.argsort(index, stable=True)
    places = torch.arange(len(index))
    if size == 0 or not torch.equal(index[order], places // size):
        raise ModelLoadError(f"{name} gives the groups different sizes; expected {len(index)} inputs in "
                             f"{groups} equal groups (the last may be smaller)")
    return size, None if torch.equal(order, places) else order.to(torch.int32)


def _group_size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not (value == -1 or 1 <= value <= 1 << 20):
        raise ModelLoadError(f"GPTQ with group_size {shown(value)}; expected -1 or a positive number")
    return value


def unpack(words: Tensor, bits: int) -> Tensor:
    """Codes of a row's stream of bits, lowest first: int32 [rows, w] -> uint8 [rows, w * 32 / bits].

    Where bits do not divide 32, w is a multiple of them.
    """
    rows, width = words.shape
    if 32 % bits:
        return _unpack_across(words.view(rows, width // bits, bits)).view(rows, -1)
    # Little-endian: the lowest byte comes first. Flat, for the strides of a size of 1 say nothing.
    octets = words.reshape(-1).view(torch.uint8).view(rows, width * 4)
    if bits == 8:
        return octets
    codes = octets.new_empty(rows, width * 4, 8 // bits)
    for i in range(8 // bits):
        torch.bitwise_and(octets >> (i * bits), (1 << bits) - 1, out=codes[:, :, i])
    return codes.view(rows, -1)


def _unpack_across(words: Tensor) -> Tensor:
    """As many words as a code has bits hold 32 codes, some of which straddle words.
    [rows, w / bits, bits] -> [rows, w / bits, 32]."""
    bits = words.shape[-1]
    wide = words.to(torch.int64) & 0xFFFFFFFF
    codes = words.new_empty(*words.shape[:2], 32, dtype=torch.uint8)
    for i in range(32):
        word, shift = divmod(bits * i, 32)
        code = wide[..., word] >> shift
        if shift > 32 - bits:
            code = code | (wide[..., word + 1] << (32 - shift))
        codes[..., i] = (code & ((1 << bits) - 1)).to(torch.uint8)
    return codes


def unpack_zeros(words: Tensor, bits: int, offset: int) -> Tensor:
    """uint8 [groups, n]. Version 1 (offset 1) stores zero - 1.

    Whole words of 2, 4 and 8 bits had 1 subtracted from each field with borrow, so 1 is added with carry:
    a zero point of 0 comes back as 0 and leaves its neighbours right. As gptqmodel's
    convert_gptq_v1_to_v2_format_module; 3-bit fields wrap one by one there, too.
    """
    if offset and bits != 3:
        ones = sum(1 << shift for shift in range(0, 32, bits))
        wide = (words.to(torch.int64) + ones) & 0xFFFFFFFF
        return unpack(torch.where(wide > 0x7FFFFFFF, wide - (1 << 32), wide).to(torch.int32), bits)
    codes = unpack(words, bits)
    return (codes + offset) & 7 if offset else codes
