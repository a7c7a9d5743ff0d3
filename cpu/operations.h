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
    int64_t num_tokens, hidden_size;
};

struct RopeArgs {
    float* qkv;  // [num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]
    int64_t qkv_stride;
    const float *cos_table, *sin_table;  // [max_positions, head_dim / 2]
    const int32_t* positions;            // [num_tokens]
    const int64_t* slot_mapping;         // [num_tokens]
    void* k_cache;                       // [num_pages, num_kv_heads, block of keys]
    void* v_cache;                       // [num_pages, num_kv_heads, block of values]
    int cache_dtype;
    int64_t page_size, num_tokens, num_heads, num_kv_heads, head_dim;
};

struct AttentionArgs {
    const float* q;  // [num_tokens, num_heads * head_dim]
    int64_t q_stride;
    const void* k_cache;  // [num_pages, num_kv_heads, block of keys]
    const void* v_cache;  // [num_pages, num_kv_heads, block of values]
    int cache_dtype;
    int64_t page_size;
    const int32_t* block_table;  // [num_sequences, >= pages in use]
    int64_t block_table_stride;
    const int32_t* cu_seqlens;  // [num_sequences + 1]
    const int32_t* seq_lens;    // [num_sequences]
    float* out;                 // [num_tokens, num_heads * head_dim]
    int64_t num_sequences, num_heads, num_kv_heads, head_dim;
    float scale;
};

}  // namespace parlor

PARLOR_DECLARE(void, embed_rows, const parlor::EmbedArgs&)
PARLOR_DECLARE(void, rope_rows, const parlor::RopeArgs&)
PARLOR_DECLARE(void, weigh_logits, double*, int64_t, double, double)
PARLOR_DECLARE(int, attend, const parlor::AttentionArgs&)
