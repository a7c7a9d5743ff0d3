// Layers with a state, as the C entry points (state.cpp) hand them over: arguments are checked already.
#pragma once

#include <cstdint>

#include "isa.h"

namespace parlor {

// The sequences of a step, and where their states are.
struct Sequences {
    float* states;             // [num_slots, ...], slots slot_stride apart
    int64_t slot_stride;
    const int32_t* slots;      // [count]
    const int32_t* cu_seqlens; // [count + 1]
    const int32_t* seq_lens;   // [count]
    const int32_t* row_slots;  // [T] or null
    int64_t count;

    bool is_padding(int64_t s) const { return slots[s] < 0; }
    int64_t first_row(int64_t s) const { return cu_seqlens[s]; }
    int64_t last_row(int64_t s) const { return cu_seqlens[s + 1]; }  // the one after it
    bool begins(int64_t s) const { return seq_lens[s] == cu_seqlens[s + 1] - cu_seqlens[s]; }
    float* state(int64_t s) const { return states + slots[s] * slot_stride; }
    // Where the state after row t goes, too; or null.
    float* kept_state(int64_t t) const {
        return row_slots && row_slots[t] >= 0 ? states + row_slots[t] * slot_stride : nullptr;
    }
};

struct ConvArgs {
    const float* x;  // [T, channels]
    int64_t x_stride;
    const float *weight, *bias;  // [size, channels]; [channels] or null
    float* out;                  // [T, channels], may be x
    int64_t out_stride;
    Sequences sequences;  // states [size - 1, channels]
    int64_t size, channels;
    bool has_silu;
};

struct DeltaArgs {
    const float *q, *k, *v;  // [T, num_key_heads * key_dim], the same, [T, num_heads * value_dim]
    int64_t q_stride, k_stride, v_stride;
    const float *log_decay, *beta;  // [T, num_heads * decay_dim], [T, num_heads]
    int64_t log_decay_stride, beta_stride;
    float* out;  // [T, num_heads * value_dim], may be v
    int64_t out_stride;
    Sequences sequences;  // states [num_heads, key_dim, value_dim]
    int64_t num_rows, num_key_heads, num_heads;
    bool is_tiled;
    int64_t key_dim, value_dim;
    int64_t decay_dim;  // 1: of a head; key_dim: of each row of its state

    int64_t key_head(int64_t head) const {
        return is_tiled ? head % num_key_heads : head / (num_heads / num_key_heads);
    }
};

struct MambaArgs {
    const float *x, *b, *c;  // [T, num_heads * head_dim], [T, num_groups * state_size], the same
    int64_t x_stride, b_stride, c_stride;
    const float* dt;  // [T, num_heads]
    int64_t dt_stride;
    const float *a, *d;  // [num_heads]; d may be null
    float* out;          // [T, num_heads * head_dim], may be x
    int64_t out_stride;
    Sequences sequences;  // states [num_heads, state_size, head_dim]
    int64_t num_groups, num_heads, state_size, head_dim;
};

constexpr int64_t kMaxConvSize = 16;
constexpr int64_t kMaxStateDepth = 256;  // rows of a head's state

}  // namespace parlor

PARLOR_DECLARE(void, convolve, const parlor::ConvArgs&)
PARLOR_DECLARE(int, delta_rule, const parlor::DeltaArgs&)
PARLOR_DECLARE(void, scan_mamba, const parlor::MambaArgs&)
