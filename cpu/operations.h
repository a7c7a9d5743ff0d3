// The vectorised operations, as the C entry points (operations.cpp) hand them over: arguments are checked already.
#pragma once

#include <cstdint>

#include "isa.h"

namespace parlor {

struct EmbedArgs {
    const void* table;         // [vocab_size, hidden_size]
    int table_dtype;
    const int32_t* token_ids;  // [num_tokens]
    float* out;                // [num_tokens, hidden_size]
    float scale;
    int64_t num_tokens, hidden_size;
};

struct NormArgs {
    const float* x;  // [num_rows, num_groups * size]
    int64_t x_stride;
    const float *weight, *bias;  // or null
    int64_t weight_stride;       // from group to group: 0 or size
    float eps;
    int kind;
    float* out;  // [num_rows, num_groups * size]
    int64_t out_stride;
    bool add;
    float scale;
    int64_t num_rows, num_groups, size;
};

struct ActivationArgs {
    const float* x;  // [num_rows, size]
    int64_t x_stride;
    const float* gated;  // [num_rows, size] or null
    int64_t gated_stride;
    float* out;  // [num_rows, size], may be one of the others
    int64_t out_stride;
    int kind;
    int64_t num_rows, size;
};

struct SoftplusArgs {
    const float* x;  // [num_rows, size]
    int64_t x_stride;
    const float *bias, *scale;  // [size] or null
    float low, high;
    float* out;  // [num_rows, size], may be x
    int64_t out_stride;
    int64_t num_rows, size;
};

struct CombineArgs {
    const float* given;    // [experts that were computed, size]
    int64_t given_stride;
    const int32_t* place;  // [num_rows, top_k] rows of given
    const float* shares;   // [num_rows, top_k] or null: 1
    int64_t top_k;
    const float* gate;     // [num_rows] or null
    bool add;
    float* out;            // [num_rows, size]
    int64_t out_stride, num_rows, size;
};

struct XieluArgs {
    const float* x;  // [num_rows, size]
    int64_t x_stride;
    float* out;  // [num_rows, size]
    int64_t out_stride;
    float above, below;
    int64_t num_rows, size;
};

struct CutArgs {
    float* x;  // [num_rows, size]
    int64_t x_stride;
    float deviations;
    int64_t num_rows, size;
};

struct MatchArgs {
    float* x;  // [num_rows, size]
    int64_t x_stride;
    const float* like;  // [num_rows, size]
    int64_t like_stride;
    float eps;
    int64_t num_rows, size;
};

struct MixArgs {
    const float* x;  // [num_rows, num_inputs * size]
    int64_t x_stride;
    const float* shares;  // [num_rows, num_outputs * num_inputs]
    int64_t shares_stride;
    float* out;  // [num_rows, num_outputs * size]
    int64_t out_stride;
    bool add;
    int64_t num_rows, num_inputs, num_outputs, size;
};

struct CapArgs {
    float* x;  // [num_rows, size]
    int64_t x_stride;
    float scale, cap;  // cap 0: none
    int64_t num_rows, size;
};

struct RotateArgs {
    float* x;  // [num_tokens, num_heads * head_dim]
    int64_t x_stride;
    const float *cos_table, *sin_table;  // [max_positions, rotary_dim / 2]
    const int32_t* positions;            // [num_tokens]
    bool is_interleaved;
    int64_t num_tokens, num_heads, head_dim, rotary_dim;
};

struct RopeArgs {
    float* qkv;  // [num_tokens, (num_heads + 2 * num_kv_heads) * head_dim], or without the values
    int64_t qkv_stride;
    const float *cos_table, *sin_table;  // [max_positions, rotary_dim / 2] or null
    const float* query_scale;            // [max_positions] or null
    const int32_t* positions;            // [num_tokens]
    const int64_t* slot_mapping;         // [num_tokens]
    void* k_cache;                       // [num_pages, num_kv_heads, block of keys]
    void* v_cache;                       // [num_pages, num_kv_heads, block of values] or null: the keys are
    int cache_dtype;
    int64_t page_size, num_tokens, num_heads, num_kv_heads, head_dim, rotary_dim;
    bool is_interleaved;
};

// The first key that a row sees whose last one is number `keys` - 1; see paged_attention() in kernels.h.
inline int64_t first_key(int64_t keys, int64_t window) {
    if (window < 0) return (keys - 1) / -window * -window;
    return window > 0 && keys > window ? keys - window : 0;
}

struct AttentionArgs {
    const float* q;  // [num_tokens, num_heads * head_dim]
    int64_t q_stride;
    const void* k_cache;  // [num_pages, num_kv_heads, block of keys]
    const void* v_cache;  // [num_pages, num_kv_heads, block of values] or null: the keys are
    int cache_dtype;
    int64_t page_size;
    const int32_t* block_table;  // [num_sequences, >= pages in use]
    int64_t block_table_stride;
    const int32_t* cu_seqlens;  // [num_sequences + 1]
    const int32_t* seq_lens;    // [num_sequences]
    float* out;                 // [num_tokens, num_heads * head_dim]
    int64_t num_sequences, num_heads, num_kv_heads, head_dim;
    float scale;
    int64_t window;      // 0: all keys; negative: those of a chunk of -window
    float softcap;       // 0: none
    const float* sinks;  // [num_heads] or null
};

struct LoraArgs {
    const float* x;  // [num_rows, k]
    int64_t x_stride;
    const float* norm_weight;  // [k] or null
    float eps;
    const int32_t* row_adapters;  // [num_rows]
    const lora_adapter* adapters;
    int64_t num_adapters, k;
    float* out;  // [num_rows, n]
    int64_t out_stride, num_rows;
};

}  // namespace parlor

PARLOR_DECLARE(void, embed_rows, const parlor::EmbedArgs&)
PARLOR_DECLARE(void, normalize, const parlor::NormArgs&)
PARLOR_DECLARE(void, activate_rows, const parlor::ActivationArgs&)
PARLOR_DECLARE(void, softplus, const parlor::SoftplusArgs&)
PARLOR_DECLARE(void, xielu, const parlor::XieluArgs&)
PARLOR_DECLARE(void, cut, const parlor::CutArgs&)
PARLOR_DECLARE(void, match, const parlor::MatchArgs&)
PARLOR_DECLARE(void, mix, const parlor::MixArgs&)
PARLOR_DECLARE(void, cap, const parlor::CapArgs&)
PARLOR_DECLARE(void, combine_rows, const parlor::CombineArgs&)
PARLOR_DECLARE(void, rotate_rows, const parlor::RotateArgs&)
PARLOR_DECLARE(void, rope_rows, const parlor::RopeArgs&)
PARLOR_DECLARE(void, weigh_logits, double*, int64_t, double, double)
PARLOR_DECLARE(int, add_lora, const parlor::LoraArgs&)
PARLOR_DECLARE(int, attend, const parlor::AttentionArgs&)
#if PARLOR_BUILT_DOTPROD
PARLOR_DECLARE_IN(dotprod, int, attend, const parlor::AttentionArgs&)
#endif
