"""Small random models of many families, saved as transformers saves them, with windows and spans that short
prompts leave behind. Norms and biases are random, too: those of one and zero would hide mistakes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_SMALL = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 4,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
          "initializer_range": 0.2, "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1,
          "eos_token_id": 2}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
_LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64,
             "short_factor": [1 + 0.05 * i for i in range(8)],
             "long_factor": [1.5 + 0.7 * i for i in range(8)]}
_WINDOWS = {"sliding_window": 20}
_GEMMA4 = {**_WINDOWS, "head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 0,
           "tie_word_embeddings": True, "final_logit_softcapping": 4.0, "layer_types": [
               "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]}
_LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 40, "q_lora_rank": 24, "qk_nope_head_dim": 16,
           "qk_rope_head_dim": 8, "v_head_dim": 12, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
           "first_k_dense_replace": 1}
_DELTA = {"head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
          "linear_value_head_dim": 24, "linear_conv_kernel_dim": 4, "layer_types": [
              "linear_attention", "full_attention", "linear_attention", "linear_attention"]}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 2, "mamba_d_conv": 4,
          "mamba_expand": 2, "mamba_chunk_size": 32, "mamba_conv_bias": True, "mamba_proj_bias": False}
_SEES = {"hidden_size": 32, "intermediate_size": 48}
_VISIONS = {
    "MuseGlimmer": {**_SEES, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "layer_types": ["full_attention"], "pos_emb_height": 4, "pos_emb_width": 4},
    "Qwen2_5_VL": {**_SEES, "depth": 1, "num_heads": 2, "out_hidden_size": 64, "fullatt_block_indexes": [0]},
    "Qwen3VL": {**_SEES, "depth": 1, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0],
                "num_position_embeddings": 16}}
_VISIONS["Qwen3VLMoe"] = _VISIONS["Qwen3VL"]
_VISIONS["Glm4v"] = {**_SEES, "depth": 1, "num_heads": 2, "out_hidden_size": 64}
_VISIONS["SmolVLM"] = {**_SEES, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
                       "patch_size": 16}
_VISIONS["Lfm2Vl"] = {**_SEES, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "model_type": "siglip2_vision_model"}
_SMALL_VISION = {**_SEES, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
                 "patch_size": 16}
_VISIONS["Llava"] = {**_SMALL_VISION, "model_type": "clip_vision_model"}
_VISIONS["InternVL"] = {**_SMALL_VISION, "model_type": "internvl_vision", "image_size": [32, 32],
                        "patch_size": [16, 16]}
_VISIONS["Mistral3"] = {**_SMALL_VISION, "model_type": "pixtral", "head_dim": 16}
"""Of families that have no class of the text model alone, and of models around any text model."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama yarn": ("Llama", {"rope_parameters": _YARN}),
    "llama 3": ("Llama", {"rope_parameters": _LLAMA3}),
    "llama dynamic": ("Llama", {"max_position_embeddings": 48, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 1e4, "factor": 6.0}}),
    "mistral window": ("Mistral", {**_WINDOWS, "head_dim": 24}),
    "ministral 3": ("Ministral3", {"rope_parameters": {
        **_YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}, "sliding_window": None}),
    "qwen 2 windows": ("Qwen2", {**_WINDOWS, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen 3": ("Qwen3", {"head_dim": 24}),
    "gemma": ("Gemma", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma 2": ("Gemma2", {**_WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 24,
                           "tie_word_embeddings": True, "attn_logit_softcapping": 4.0,
                           "final_logit_softcapping": 3.0}),
    "vaultgemma": ("VaultGemma", {
        **_WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 24, "tie_word_embeddings": True,
        "attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0}),
    "gemma 3": ("Gemma3Text", {**_WINDOWS, "head_dim": 24, "query_pre_attn_scalar": 24,
                               "num_hidden_layers": 6, "tie_word_embeddings": True}),
    "gemma 4": ("Gemma4Text", {**_GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma 4 small": ("Gemma4Text", {
        **_GEMMA4, "num_hidden_layers": 6, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96,
        "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "layer_types": [
            "sliding_attention", "full_attention", "sliding_attention", "full_attention",
            "sliding_attention", "full_attention"]}),
    "gemma 4 mixture": ("Gemma4Text", {
        **_GEMMA4, "enable_moe_block": True, "num_experts": 5, "top_k_experts": 2,
        "moe_intermediate_size": 24}),
    "gemma 3n": ("Gemma3nText", {
        **_WINDOWS, "head_dim": 16, "num_hidden_layers": 6, "intermediate_size": [80] * 6, "laurel_rank": 64,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 80, "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.9, 0.3, 0.0, 0.0, 0.0, 0.0], "tie_word_embeddings": True,
        "final_logit_softcapping": 4.0, "layer_types": [
            "sliding_attention", "full_attention", "sliding_attention", "full_attention",
            "sliding_attention", "full_attention"]}),
    "phi 3": ("Phi3", {**_WINDOWS, "rope_parameters": _LONGROPE, "original_max_position_embeddings": 64}),
    "phi 4 mini": ("Phi3", {"tie_word_embeddings": True, "original_max_position_embeddings": 64,
                            "rope_parameters": {**_LONGROPE, "partial_rotary_factor": 0.75, **{
                                key: _LONGROPE[key][:6] for key in ("short_factor", "long_factor")}}}),
    "smollm 3": ("SmolLM3", {"tie_word_embeddings": True}),
    "granite": ("Granite", {"embedding_multiplier": 3.0, "attention_multiplier": 0.12, "logits_scaling": 0.5,
                            "residual_multiplier": 0.6}),
    "olmo 2": ("Olmo2", {"num_key_value_heads": 4}),
    "olmo 3": ("Olmo3", {**_WINDOWS, "num_key_value_heads": 4, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": _YARN}}),
    "glm": ("Glm", {"head_dim": 16, "attention_bias": True}),
    "glm 4": ("Glm4", {"head_dim": 16, "attention_bias": True}),
    "cohere": ("Cohere", {"logit_scale": 0.25, "use_qk_norm": True, "tie_word_embeddings": True}),
    "cohere 2": ("Cohere2", {**_WINDOWS, "logit_scale": 0.25, "tie_word_embeddings": True}),
    "exaone 4": ("Exaone4", {**_WINDOWS, "rope_parameters": _LLAMA3, "sliding_window_pattern": 4}),
    "seed-oss": ("SeedOss", {"head_dim": 16}),
    "hunyuan": ("HunYuanDenseV1", {"head_dim": 16}),
    "ernie 4.5": ("Ernie4_5", {"head_dim": 16}),
    "starcoder 2": ("Starcoder2", {**_WINDOWS, "hidden_act": "gelu_pytorch_tanh"}),
    "starcoder 2, erf": ("Starcoder2", {"hidden_act": "gelu", "sliding_window": None}),
    "stablelm": ("StableLm", {"use_qkv_bias": True}),
    "stablelm, parallel": ("StableLm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "nemotron": ("Nemotron", {}),
    "gpt-neox": ("GPTNeoX", {"num_key_value_heads": 4, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "nanochat": ("NanoChat", {"final_logit_softcapping": 4.0}),
    "olmo": ("Olmo", {}),
    "mamba 2": ("Mamba2", {
        "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 32}),
    "bamba": ("Bamba", {**_MAMBA, "attn_layer_indices": [1, 3]}),
    "apertus 1.5": ("Apertus1p5Text", {"output_vocab_size": 80}),
    "gpt-2": ("GPT2", {"num_key_value_heads": 4, "n_inner": 80, "scale_attn_by_inverse_layer_idx": True}),
    "gpt big code": ("GPTBigCode", {"num_key_value_heads": 1, "n_inner": 80}),
    "gpt big code, every head": ("GPTBigCode", {
        "num_key_value_heads": 4, "n_inner": 80, "multi_query": False}),
    "gpt-neo": ("GPTNeo", {"num_key_value_heads": 4, "attention_types": [[["global", "local"], 2]],
                           "window_size": 20}),
    "gpt-j": ("GPTJ", {"num_key_value_heads": 4, "n_inner": 80, "rotary_dim": 8}),
    "opt": ("OPT", {"num_key_value_heads": 4, "ffn_dim": 80, "init_std": 0.2}),
    "biogpt": ("BioGpt", {"num_key_value_heads": 4}),
    "persimmon": ("Persimmon", {"num_key_value_heads": 4}),
    "falcon": ("Falcon", {"num_key_value_heads": 1, "multi_query": True, "ffn_hidden_size": 80}),
    "falcon 40b": ("Falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 80}),
    "falcon 11b": ("Falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 80,
                              "num_ln_in_parallel_attn": 1}),
    "gpt-neox, one after the other": ("GPTNeoX", {
        "num_key_value_heads": 4, "use_parallel_residual": False}),
    "lfm 2": ("Lfm2", {"layer_types": ["conv", "full_attention", "conv", "full_attention"],
                       "block_auto_adjust_ff_dim": False, "conv_bias": True, "tie_word_embeddings": True}),
    "lfm 3": ("Lfm3", {
        **_WINDOWS, "head_dim": 16, "conv_L_cache": 5, "conv_bias": True, "tie_word_embeddings": True,
        "layer_types": ["conv", "full_attention", "sliding_attention", "conv"]}),
    "qwen 3.5": ("Qwen3_5Text", {**_DELTA}),
    "qwen 3 next": ("Qwen3Next", {**_DELTA, "num_experts": 4, "num_experts_per_tok": 2,
                                  "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}),
    "granite 4": ("GraniteMoeHybrid", {
        **_MAMBA, "layer_types": ["mamba", "attention", "mamba", "mamba"], "num_local_experts": 0,
        "shared_intermediate_size": 80, "embedding_multiplier": 3.0, "attention_multiplier": 0.12,
        "logits_scaling": 0.5, "residual_multiplier": 0.6}),
    "nemotron h": ("NemotronH", {
        "layers_block_type": ["mamba", "mlp", "attention", "mamba", "mlp"], "num_hidden_layers": 5,
        "head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16,
        "chunk_size": 32}),
    "nemotron 3": ("NemotronH", {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention", "moe"],
        "num_hidden_layers": 5, "head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2,
        "ssm_state_size": 16, "chunk_size": 32, "n_routed_experts": 6, "moe_intermediate_size": 24,
        "moe_shared_expert_intermediate_size": 40, "routed_scaling_factor": 1.5, "num_experts_per_tok": 2}),
    "falcon h1": ("FalconH1", {
        **_MAMBA, "head_dim": 16, "mamba_d_ssm": 96, "mamba_n_heads": 6, "mamba_rms_norm": True,
        "mamba_norm_before_gate": False, "attention_in_multiplier": 1.1, "attention_out_multiplier": 0.9,
        "key_multiplier": 0.7, "mlp_multipliers": [0.8, 0.6], "ssm_in_multiplier": 1.3,
        "ssm_out_multiplier": 0.8, "ssm_multipliers": [0.7, 0.5, 0.8, 0.6, 0.9], "lm_head_multiplier": 0.5,
        "embedding_multiplier": 3.0}),
    "llama 4": ("Llama4Text", {
        "head_dim": 16, "attention_chunk_size": 24, "floor_scale": 16, "attn_scale": 0.3,
        "num_local_experts": 5, "intermediate_size_mlp": 40, "interleave_moe_layer_step": 2,
        "num_experts_per_tok": 1}),
    "apertus": ("Apertus", {"rope_parameters": _LLAMA3}),
    "arcee": ("Arcee", {"rope_parameters": _YARN}),
    "jais 2": ("Jais2", {}),
    "helium": ("Helium", {"head_dim": 16, "num_key_value_heads": 4}),
    "cwm": ("Cwm", {**_WINDOWS, "head_dim": 16, "rope_parameters": _LLAMA3}),
    "hyperclova x": ("HyperCLOVAX", {
        "embedding_multiplier": 3.0, "attention_multiplier": 0.12, "logits_scaling": 0.5,
        "residual_multiplier": 0.6}),
    "granite swash": ("GraniteSWA", {
        **_WINDOWS, "embedding_multiplier": 3.0, "attention_multiplier": 0.12, "logits_scaling": 0.5,
        "residual_multiplier": 0.6, "layer_rope_theta": [0, 1e4, 5e3, 1e4]}),
    "phi": ("Phi", {"num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                        "partial_rotary_factor": 0.5}}),
    "glm 4v": ("Glm4v", {"head_dim": 16, "attention_bias": True, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2, 1],
        "partial_rotary_factor": 0.5}}),
    "llava": ("Llava", {"model_type": "qwen2"}),
    "intern vl": ("InternVL", {"model_type": "qwen3", "head_dim": 16}),
    "smolvlm": ("SmolVLM", {"model_type": "llama"}),
    "lfm 2 vl": ("Lfm2Vl", {
        "model_type": "lfm2", "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        "block_auto_adjust_ff_dim": False, "conv_bias": False, "tie_word_embeddings": True}),
    "qwen 2.5 vl": ("Qwen2_5_VL", {"rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}),
    "qwen 3 vl": ("Qwen3VL", {"head_dim": 16, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}),
    "muse glimmer": ("MuseGlimmer", {
        **_WINDOWS, "layer_types": ["sliding_attention", "full_attention"] * 2, "head_dim": 16,
        "layer_rope_theta": [1e4, 0, 1e4, 0], "output_multiplier": 0.5, "final_logit_softcapping": 4.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "phi moe": ("Phimoe", {
        "num_local_experts": 5, "router_jitter_noise": 0.3, "attention_bias": True, "lm_head_bias": True,
        "rms_norm_eps": 1e-5, "rope_parameters": {
            **_LONGROPE, "original_max_position_embeddings": 256, "short_mscale": 1.243163121016122,
            "long_mscale": 1.243163121016122}}),
    "qwen 2 moe": ("Qwen2Moe", {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                                "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]}),
    "qwen 3 moe": ("Qwen3Moe", {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                                "norm_topk_prob": True, "head_dim": 24}),
    "gpt-oss": ("GptOss", {
        **_WINDOWS, "head_dim": 16, "intermediate_size": 24, "num_local_experts": 5, "num_experts_per_tok": 2,
        "rope_parameters": {**_YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}}),
    "glm 4 moe": ("Glm4Moe", {
        "head_dim": 16, "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "use_qk_norm": True,
        "attention_bias": True, "n_group": 1, "topk_group": 1}),
    "ernie 4.5 moe": ("Ernie4_5_Moe", {
        "head_dim": 16, "moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 24,
        "moe_num_shared_experts": 2}),
    "qwen 3 vl moe": ("Qwen3VLMoe", {
        "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}),
    "granite moe": ("GraniteMoe", {
        "embedding_multiplier": 3.0, "attention_multiplier": 0.12, "logits_scaling": 0.5,
        "residual_multiplier": 0.6, "num_local_experts": 5, "num_experts_per_tok": 2}),
    "olmoe": ("Olmoe", {"num_key_value_heads": 4, "num_experts": 5, "num_experts_per_tok": 2}),
    "minimax m2": ("MiniMaxM2", {
        "head_dim": 16, "intermediate_size": 24, "num_local_experts": 5, "num_experts_per_tok": 2,
        "rotary_dim": 8}),
    "dots 1": ("Dots1", {
        "head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2, "n_group": 4,
        "topk_group": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5, "norm_topk_prob": True}),
    "exaone moe": ("ExaoneMoe", {
        **_WINDOWS, "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}),
    "afmoe": ("Afmoe", {
        **_WINDOWS, "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "route_scale": 1.5, "mup_enabled": True}),
    "solar open": ("SolarOpen", {
        "head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "routed_scaling_factor": 1.5}),
    "granite swash moe": ("GraniteMoeSWA", {
        **_WINDOWS, "embedding_multiplier": 3.0, "attention_multiplier": 0.12, "logits_scaling": 0.5,
        "residual_multiplier": 0.6, "num_local_experts": 5, "num_experts_per_tok": 2,
        "shared_intermediate_size": 40}),
    "mellum": ("Mellum", {
        **_WINDOWS, "head_dim": 16, "num_local_experts": 5, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "layer_types": ["sliding_attention", "full_attention"] * 2,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": _YARN}}),
    "cohere 2 moe": ("Cohere2Moe", {
        **_WINDOWS, "head_dim": 16, "logit_scale": 0.25, "tie_word_embeddings": True, "num_experts": 5,
        "num_experts_per_tok": 2, "num_shared_experts": 1, "expert_selection_fn": "sigmoid",
        "prefix_dense_intermediate_size": 72, "rms_norm_eps": 1e-5, "layer_types": [
            "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    "cohere 2 moe, by a softmax": ("Cohere2Moe", {
        **_WINDOWS, "head_dim": 16, "tie_word_embeddings": True, "num_experts": 5, "num_experts_per_tok": 2,
        "num_shared_experts": 2, "shared_expert_combination_strategy": "sum"}),
    "flex olmo": ("FlexOlmo", {"num_key_value_heads": 4, "num_experts": 5, "num_experts_per_tok": 2}),
    "flint": ("Flint", {
        **_WINDOWS, "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40, "mlp_only_layers": [0], "layer_types": [
            "full_attention", "sliding_attention", "sliding_attention", "full_attention"]}),
    "laguna": ("Laguna", {
        **_WINDOWS, "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40, "moe_routed_scaling_factor": 1.5,
        "num_attention_heads_per_layer": [4, 6, 4, 2], "layer_types": [
            "full_attention", "sliding_attention", "sliding_attention", "full_attention"]}),
    "hy 3": ("HYV3", {
        "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "router_scaling_factor": 1.5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "hunyuan moe": ("HunYuanMoEV1", {"head_dim": 16, "num_experts": 5, "moe_topk": 2}),
    "deepseek 2": ("DeepseekV2", {
        **_LATENT, "n_routed_experts": 5, "n_shared_experts": 2, "q_lora_rank": None,
        "rope_parameters": {**_YARN, "mscale": 0.7, "mscale_all_dim": 0.7}, "n_group": 1, "topk_group": 1}),
    "deepseek 3": ("DeepseekV3", {
        **_LATENT, "n_routed_experts": 8, "n_group": 4, "topk_group": 2,
        "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, "routed_scaling_factor": 2.5}),
    "glm 4.7 flash": ("Glm4MoeLite", {**_LATENT, "n_routed_experts": 5}),
    "youtu": ("Youtu", {key: value for key, value in _LATENT.items() if "moe" not in key and "exp" not in key
                        and not key.startswith("first")} | {"tie_word_embeddings": True}),
    "minicpm 3": ("MiniCPM3", {
        "num_key_value_heads": 4, "kv_lora_rank": 40, "q_lora_rank": 24, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16, "v_head_dim": 16, "scale_emb": 3, "scale_depth": 1.4, "dim_model_base": 32,
        "tie_word_embeddings": True, "rope_parameters": _LONGROPE}),
    "mistral 4": ("Mistral4", {
        **_LATENT, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5,
        "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}),
    "kimi linear": ("KimiLinear", {
        **_LATENT, "q_lora_rank": None, "num_experts": 8, "num_expert_group": 4, "topk_group": 2,
        "num_shared_experts": 1, "routed_scaling_factor": 2.5, "linear_attn_config": {
            "head_dim": 24, "num_heads": 3, "short_conv_kernel_size": 4, "kda_layers": [1, 3, 4],
            "full_attn_layers": [2]}}),
}
VARIANTS["mistral 4 with eyes"] = ("Mistral3", {"model_type": "mistral4", **VARIANTS["mistral 4"][1]})
VARIANTS["nemotron 3 latent"] = ("NemotronH", {
    **VARIANTS["nemotron 3"][1], "moe_latent_size": 32, "n_group": 2, "topk_group": 1})

MIXTURES = ("mixtral", "phi moe", "qwen 2 moe", "qwen 3 moe", "gemma 4 mixture", "deepseek 2", "deepseek 3",
            "glm 4.7 flash", "gpt-oss", "glm 4 moe", "ernie 4.5 moe", "hunyuan moe", "qwen 3 next", "llama 4",
            "nemotron 3", "nemotron 3 latent", "kimi linear", "qwen 3 vl moe", "granite moe", "olmoe",
            "minimax m2", "dots 1", "exaone moe", "afmoe", "solar open", "granite swash moe", "mellum",
            "cohere 2 moe", "cohere 2 moe, by a softmax", "flex olmo", "flint", "hy 3", "laguna",
            "mistral 4", "mistral 4 with eyes", "small thinker")


def write_family(folder: Path, variant: str, **changes: Any) -> torch.nn.Module:
    """Save the model of a variant; returns it in float32."""
    import transformers

    name, settings = VARIANTS[variant]
    settings = {**_SMALL, **settings, **changes}
    if name in _VISIONS:
        settings = {"text_config": settings, "vision_config": _VISIONS[name],
                    "image_token_id": 1000,  # in no text
                    "tie_word_embeddings": settings["tie_word_embeddings"]}
    config = getattr(transformers, name + "Config")(**settings)
    ending = "ForConditionalGeneration" if "text_config" in settings else "ForCausalLM"
    known = "GPT2LMHeadModel" if name == "GPT2" else name + ending
    model_class = getattr(transformers, known, None) or getattr(
        transformers, name.removesuffix("Text") + ending)
    torch.manual_seed(1)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or ".ln_" in parameter_name or parameter_name.endswith(
                ("bias", "scale", "alpha_p", "alpha_n", ".D", "A_log")):
            parameter.data += torch.randn_like(parameter) * 0.3
        if name.startswith(("Gemma3n", "Gemma4")) and "q_norm" in parameter_name:
            parameter.data *= 0.3  # nothing else scales the scores
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("layer_scalar"):
            buffer.data += torch.rand_like(buffer) * 0.4 - 0.2
        if buffer_name.endswith("correction_bias"):
            buffer.data += torch.randn_like(buffer) * 0.3
    model.save_pretrained(folder, max_shard_size="60KB")
    if name == "Qwen3VLMoe":
        for file in folder.glob("model*.safetensors"):  # published with the inputs of experts first
            tensors = {key: tensor.transpose(1, 2).contiguous() if ".experts." in key else tensor
                       for key, tensor in load_file(file).items()}
            save_file(tensors, file, metadata={"format": "pt"})
    return model
