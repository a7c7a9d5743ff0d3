"""Consecutive layers of a decoder on one device, with their cache and the buffers of a step.

The first stage begins with the embeddings, the last ends with the norm and the head. What is computed is the
Spec's to say, how is the kernels'; every buffer is allocated once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from model.families.cache_groups import cache_groups
from model.families.spec import (
    Attention,
    ChannelDelta,
    Dense,
    GatedDelta,
    LatentAttention,
    Layer,
    Moe,
    Spec,
    StateMixer,
)
from model.network.attention import AttentionMixer, KVCache, Tables
from model.network.branch import NO_NORM, Branch, adds_directly, norm_is_fused, normalize
from model.network.built_layer import BuiltLayer, Mixer
from model.network.latent_attention import LatentMixer, latent_widths
from model.network.latent_weights import LatentWeights
from model.network.layer_inputs import LayerInputsRows, input_widths
from model.network.mixer_weights import AttentionWeights
from model.network.mixture import Mixture, mixture_widths
from model.network.norm_weights import NO_WEIGHTS
from model.network.place import Place
from model.network.prompt_layers import prompt_runs
from model.network.states import StateCache, state_mixer
from model.network.step import Rows, Sizes, StepInput
from model.network.streams import StreamRows, stream_widths
from model.network.weights import DenseWeights, LayerWeights, ModelWeights, MoeWeights


def buffer_widths(spec: Spec, has_adapters: bool) -> dict[str, int]:
    """Numbers of a token in each buffer of a step; none of those that no layer needs. With adapters gate and
    up are wanted before one multiplies the other."""
    mixtures = [mixture_widths(layer.mlp, layer, spec.hidden_size) for layer in spec.layers
                if isinstance(layer.mlp, Moe)]
    mlps = [layer.mlp for layer in spec.layers if isinstance(layer.mlp, Dense)]
    widths = {"hidden": spec.hidden_size,
              "qkv": max((a.qkv_size + a.gate_size for a in spec.attentions), default=0),
              "attention": max((a.query_size for a in spec.attentions), default=0),
              "mixer": max((mixer.input_size for mixer in spec.states), default=0),
              "mixed": max((mixer.output_size for mixer in spec.states), default=0),
              "heads": max((mixer.heads_size for mixer in spec.states
                            if isinstance(mixer, GatedDelta | ChannelDelta)), default=0),
              **dict.fromkeys(("decays", "gates"), max((
                  mixer.output_size for mixer in spec.states if isinstance(mixer, ChannelDelta)), default=0)),
              "inner": max((mlp.intermediate_size for mlp in mlps), default=0),
              "wide": max((mlp.up_size for mlp in mlps if has_adapters or not mlp.is_fused), default=0),
              "normed": spec.hidden_size * any(not norm_is_fused(layer) for layer in spec.layers),
              "branch": spec.hidden_size * any(
                  not adds_directly(layer, part) for layer in spec.layers
                  for part in (*layer.mixers, *([layer.mlp] if isinstance(layer.mlp, Dense) else [])))}
    for mixture in mixtures:
        widths |= {name: max(width, widths.get(name, 0)) for name, width in mixture.items()}
    if spec.norm.kind != "rms":
        widths["normed"] = spec.hidden_size
    if spec.positions is not None:
        widths["branch"] = spec.hidden_size
    widths |= input_widths(spec) | latent_widths(spec) | stream_widths(spec)
    return {name: width for name, width in widths.items() if width}


class Stage:
    """The layers `layers` of a model, at one place."""

    def __init__(self, place: Place, spec: Spec, weights: ModelWeights, layers: range, sizes: Sizes) -> None:
        self.place, self.spec, self.layers = place, spec, layers
        own = spec.layers[layers.start:layers.stop]
        self._weights = weights
        self._own_weights = weights.layers[layers.start:layers.stop]
        self._groups = {index: number for number, group in enumerate(cache_groups(spec))
                        for index in group.layers}
        kept = [(layer.attention, self._groups[index]) for index, layer in zip(layers, own, strict=True)
                if layer.attention is not None and index in self._groups]
        self.cache = KVCache.allocate(kept, sizes, place.device)
        self.states = StateCache.allocate([mixer for layer in own for mixer in layer.mixers
                                           if isinstance(mixer, StateMixer)], sizes, place.device)
        self._tables = tables = Tables(place, spec, sizes)
        self._caches: dict[int, tuple[Tensor, Tensor | None]] = {}  # of each layer, or another's
        made = iter(zip(self.cache.keys, self.cache.values, strict=True)), iter(self.states.of_mixers)
        self._layers = [self._built(index, layer, of, tables, *made)
                        for index, layer, of in zip(layers, own, self._own_weights, strict=True)]
        self._runs = prompt_runs(place.ops.prompts, self._layers)
        self._inputs = None
        if spec.layer_inputs is not None and weights.inputs is not None:
            self._inputs = LayerInputsRows(place.ops, spec, spec.layer_inputs, weights.inputs)
        self._streams = None
        if spec.streams is not None and weights.streams is not None:
            self._streams = StreamRows(place.ops, spec.streams, spec.hidden_size, weights.streams)
        self._buffers = {name: place.buffer(sizes.max_tokens * width)
                         for name, width in buffer_widths(spec, sizes.has_adapters).items()}
        self._max_tokens = sizes.max_tokens
        self._outgrown: list[Tensor | None] = []
        self._recorder = place.new_recorder()

    def _built(self, index: int, layer: Layer, weights: LayerWeights, tables: Tables,
               caches: Iterator[tuple[Tensor, Tensor | None]], states: Iterator[list[Tensor]]) -> BuiltLayer:
        ops, mixers = self.place.ops, []
        branch = Branch(ops, layer, weights.mixer_norm, weights.mixer_out_norm)
        for mixer, of in zip(layer.mixers, weights.mixers, strict=True):
            if isinstance(mixer, StateMixer):
                mixers.append(state_mixer(self.place, mixer, of, branch, next(states)))
                continue
            source = None if isinstance(mixer, LatentAttention) else mixer.reads_cache_of
            self._caches[index] = next(caches) if source is None else self._caches[source]
            group = self._groups[index if source is None else source]
            mixers.append(self._attention(mixer, of, branch, (*self._caches[index], group), tables))
        of_mlp = Branch(ops, layer, weights.mlp_norm, weights.mlp_out_norm)
        mlp = weights.mlp
        return BuiltLayer(layer, mixers,
                          Mixture(ops, layer, mlp, of_mlp) if isinstance(mlp, MoeWeights) else mlp, branch,
                          of_mlp, index, weights.input, weights.streams, weights.scale)

    def _attention(self, mixer: Attention | LatentAttention, weights: AttentionWeights | LatentWeights,
                   branch: Branch, cache: tuple[Tensor, Tensor | None, int], tables: Tables) -> Mixer:
        if isinstance(mixer, Attention):
            return AttentionMixer(self.place, mixer, weights, branch, *cache, tables)
        own = AttentionWeights(weights.latents, weights.out_proj, None, None, None)
        return LatentMixer(self.place, mixer, weights, branch,
                           AttentionMixer(self.place, mixer.kept, own, branch, *cache, tables))

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """See Recorder.sizes."""
        return self._recorder.sizes

    def seal(self) -> None:
        self._recorder.seal()

    def rotate_for(self, length: int) -> None:
        """See Tables.rotate_for."""
        self._tables.rotate_for(length)

    def forget_steps_with_adapters(self) -> None:
        """Some Linear has an adapter that had none: such steps make other calls now, and want buffers that
        may not be there yet. Those that recorded steps use stay where they are."""
        for name, width in buffer_widths(self.spec, has_adapters=True).items():
            old = self._buffers.get(name)
            if old is None or old.numel() < self._max_tokens * width:
                self._outgrown.append(old)
                self._buffers[name] = self.place.buffer(self._max_tokens * width)
        self._recorder.forget(lambda key: key[-1] is True)

    def hidden(self, num_tokens: int) -> Tensor:
        """float32 [T, hidden_size]: what goes in, unless this is the first stage, and what comes out."""
        return self._rows(0, num_tokens).hidden

    def run(self, step: StepInput) -> None:
        """Compute the new tokens in these layers and put their keys and values into the cache."""
        with self.place.active():
            # how many keys a prompt has is an argument, which a recording would keep
            if step.prompts and self.place.ops.prompts is not None:
                self._run(step)
            else:
                self._recorder.run((len(step.token_ids), len(step.seq_lens), step.has_adapters),
                                   lambda: self._run(step))

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Norm and head, in the last stage: hidden float32 [R, hidden_size], out float32 [R, vocab_size]."""
        with self.place.active():
            self._recorder.run((len(hidden), hidden.data_ptr(), out.data_ptr()),
                               lambda: self._head(hidden, out))

    def copy_pages(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole pages in every layer; int32 [cache groups, n] on the host, all read before any is
        written."""
        sources, targets = (pages.to(self.place.device, non_blocking=True) for pages in (sources, targets))
        with self.place.active():
            for keys, values, group in zip(self.cache.keys, self.cache.values, self.cache.groups,
                                           strict=True):
                self.place.ops.copy_pages(keys, values, sources[group], targets[group])

    def copy_states(self, source: Tensor, target: Tensor) -> None:
        """Copy whole slots in every layer; int64 [n] on the host, all read before any is written."""
        device = self.place.device
        with self.place.active():
            self.states.memory[target.to(device)] = self.states.memory[source.to(device)]

    def prepare(self, copy_bytes: int) -> None:
        """Have the device find out what it must measure with the weights that are here, and keep as much of
        them as `copy_bytes` have room for as prompts want it."""
        if (prompts := self.place.ops.prompts) is not None:
            weights = [part.weight for layer in self._own_weights for linear in layer.linears
                       for part in linear.parts]
            with self.place.active():
                prompts.keep_in_float16(weights, copy_bytes)
                prompts.measure_crossovers(weights)

    def _run(self, step: StepInput) -> None:
        ops, num_tokens = self.place.ops, len(step.token_ids)
        all_rows = self._rows(0, num_tokens, step)
        prompts = step.prompts if ops.prompts is not None else ()
        first = prompts[0].first if prompts else num_tokens
        # Rows that decode are computed as they would be without the prompts, so that these change no token.
        kinds = (((0, first), False), ((first, num_tokens), True))
        parts = [(self._rows(*rows, step), of_prompts) for rows, of_prompts in kinds if rows[0] < rows[1]]
        if self.layers.start == 0:
            ops.embed(self._weights.embeddings, step.token_ids, all_rows.hidden, self.spec.embedding_scale)
            if self._weights.positions is not None:
                ops.embed(self._weights.positions, step.positions, all_rows.branch)
                normalize(ops, NO_NORM, NO_WEIGHTS, all_rows.branch, all_rows.hidden, add=True)
            if (norm := self.spec.embedding_norm) is not None:
                normalize(ops, norm, NO_WEIGHTS, all_rows.hidden, all_rows.hidden)
            if self._inputs is not None:
                self._inputs.look_up(step.token_ids, all_rows)
                for v, of_prompts in parts:
                    self._inputs.project(v, of_prompts)
            if self._streams is not None:
                for v, of_prompts in parts:
                    self._streams.open(v, of_prompts)
        for layers, run in self._runs:
            if run is None or not run.takes(step):
                for built in layers:
                    self._run_layer(built, step, parts, all_rows)
                continue
            if first:
                decoding = step.without_prompts()
                for built in layers:
                    self._run_layer(built, decoding, parts[:1], parts[0][0])
            run.run(step, parts[-1][0].hidden)
        if self._streams is not None:
            for v, of_prompts in parts:
                self._streams.close(v, of_prompts)

    def _run_layer(self, built: BuiltLayer, step: StepInput, parts: Sequence[tuple[Rows, bool]],
                   all_rows: Rows) -> None:
        """parts: rows that decode, and those of prompts; whether they are these."""
        for v, of_prompts in parts:
            if self._streams is not None and built.streams is not None:
                self._streams.enter(built.streams, built.of_mixers, v, of_prompts)
            if isinstance(built.mlp, Mixture):
                built.mlp.route_ahead(v)
            for mixer in built.mixers:
                mixer.project(step, v, of_prompts)
        for mixer in built.mixers:
            mixer.mix(step, all_rows)
        for v, of_prompts in parts:
            self._finish(built, v, of_prompts)

    def _finish(self, built: BuiltLayer, v: Rows, of_prompts: bool) -> None:
        """What was mixed, and the mlp, into the hidden states."""
        layer, mlp = built.layer, built.mlp
        if layer.parallel and isinstance(mlp, DenseWeights):  # before attention changes what it reads
            self._expand(built, mlp, v, of_prompts)
        for mixer in built.mixers:
            mixer.add(v, of_prompts)
        if self._streams is not None:
            self._streams.join(v)
        if isinstance(mlp, Mixture):
            mlp.add(v, of_prompts)
        elif mlp is not None:
            inner = v.of("inner", layer.mlp.intermediate_size)
            if not layer.parallel and self._is_fused(built, mlp, v):
                built.branch.run_mlp(mlp.gate_up, mlp.down_proj, v, inner, layer.mlp, of_prompts=of_prompts)
            else:
                if not layer.parallel:
                    self._expand(built, mlp, v, of_prompts)
                built.branch.add(mlp.down_proj, inner, v, layer.mlp, of_prompts=of_prompts)
        outs = [v.hidden]
        if self._streams is not None and built.streams is not None:
            self._streams.leave(built.streams, v)
            outs = self._streams.others(v)
        if self._inputs is not None and built.input is not None:
            self._inputs.add(built.index, built.input, v, outs, of_prompts)
        if built.scale != 1:
            self.place.ops.cap_rows(v.hidden, built.scale)

    def _is_fused(self, built: BuiltLayer, of: DenseWeights, v: Rows) -> bool:
        """Whether gate and up end with the activation: no adapter adds to them before."""
        return built.layer.mlp.is_fused and (v.adapters is None or of.gate_up.adapters is None)

    def _expand(self, built: BuiltLayer, of: DenseWeights, v: Rows, of_prompts: bool) -> None:
        """Hidden states to what the mlp's last product reads."""
        mlp = built.layer.mlp
        inner = v.of("inner", mlp.intermediate_size)
        if self._is_fused(built, of, v):
            built.branch.multiply(of.gate_up, v, inner, "silu_mul", of_prompts=of_prompts)
            return
        wide = v.of("wide", mlp.up_size)
        built.branch.multiply(of.gate_up, v, wide, of_prompts=of_prompts)
        if mlp.cut is not None:
            self.place.ops.cut_rows(wide[:, :mlp.intermediate_size], mlp.cut)
        if mlp.gate_scale != 1:
            self.place.ops.cap_rows(wide[:, :mlp.intermediate_size], mlp.gate_scale)
        if of.slopes is not None:
            self.place.ops.xielu_rows(wide, inner, *of.slopes)
        else:
            self.place.ops.activate(wide, inner, mlp.activation, mlp.gated)

    def _head(self, hidden: Tensor, out: Tensor) -> None:
        spec, norm = self.spec, self._weights.norm
        if spec.norm.kind == "rms":
            self._weights.lm_head(hidden, out, norm.weight, spec.norm.eps)
        else:
            normed = self._rows(0, len(hidden)).normed
            normalize(self.place.ops, spec.norm, norm, hidden, normed)
            self._weights.lm_head(normed, out)
        if spec.logit_scale != 1 or spec.logit_softcap is not None:
            self.place.ops.cap_rows(out, spec.logit_scale, spec.logit_softcap)

    def _rows(self, first: int, last: int, step: StepInput | None = None) -> Rows:
        adapters = step.row_adapters[first:last] if step is not None and step.has_adapters else None
        return Rows(self._buffers, self.spec.hidden_size, first, last, adapters)


def buffer_bytes(spec: Spec, max_tokens: int, max_logit_rows: int, has_adapters: bool = False) -> int:
    """What a stage and the logits of a step allocate besides weights, cache and rope tables."""
    widths = buffer_widths(spec, has_adapters)
    return 4 * (max_tokens * sum(widths.values()) + max_logit_rows * spec.vocab_size)
