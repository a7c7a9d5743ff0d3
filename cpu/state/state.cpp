// C entry points of the layers with a state: every argument is checked here, then the selected set's code runs.
#include "state/state.h"

#include "checks.h"
#include "kernels.h"

namespace parlor {
namespace {

// The sequences of a step of so many rows, see kernels.h.
int check(const Sequences& of, int64_t num_slots, int64_t state_floats, int64_t num_rows) {
    if (!all_positive(num_slots, state_floats, of.count) || of.slot_stride < state_floats) return PARLOR_ERROR_SIZE;
    if (!aligned(of.states) || !aligned(of.slots) || !aligned(of.cu_seqlens) || !aligned(of.seq_lens) ||
        !aligned_or_null(of.row_slots))
        return PARLOR_ERROR_POINTER;
    if (of.cu_seqlens[0] != 0 || of.cu_seqlens[of.count] != num_rows) return PARLOR_ERROR_SIZE;
    for (int64_t s = 0; s < of.count; ++s) {
        const int64_t rows = of.last_row(s) - of.first_row(s);
        if (rows < 0 || (rows > 0 && !of.is_padding(s) && of.seq_lens[s] < rows)) return PARLOR_ERROR_SIZE;
    }
    if (!all_within(of.slots, of.count, INT32_MIN, num_slots) ||
        (of.row_slots && !all_within(of.row_slots, num_rows, INT32_MIN, num_slots)))
        return PARLOR_ERROR_INDEX;
    return PARLOR_OK;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int short_conv(const float* x, int64_t x_stride, const float* weight, const float* bias, float* out,
                          int64_t out_stride, int activation, float* states, int64_t slot_stride, int64_t num_slots,
                          const int32_t* slots, const int32_t* cu_seqlens, const int32_t* seq_lens,
                          const int32_t* row_slots, int64_t num_sequences, int64_t num_rows, int64_t size,
                          int64_t channels, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, channels) || size < 2 || size > kMaxConvSize || x_stride < channels ||
        out_stride < channels)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(weight) || !aligned_or_null(bias) || !aligned(out)) return PARLOR_ERROR_POINTER;
    if (activation != PARLOR_ACTIVATION_NONE && activation != PARLOR_ACTIVATION_SILU) return PARLOR_ERROR_VALUE;
    const Sequences sequences{states, slot_stride, slots, cu_seqlens, seq_lens, row_slots, num_sequences};
    if (const int error = check(sequences, num_slots, (size - 1) * channels, num_rows)) return error;
    PARLOR_PICK(convolve)({x, x_stride, weight, bias, out, out_stride, sequences, size, channels,
                           activation == PARLOR_ACTIVATION_SILU});
    return PARLOR_OK;
}

extern "C" int gated_delta(const float* q, int64_t q_stride, const float* k, int64_t k_stride, const float* v,
                           int64_t v_stride, const float* log_decay, int64_t log_decay_stride, int64_t decay_dim,
                           const float* beta, int64_t beta_stride, float* out, int64_t out_stride, float* states,
                           int64_t slot_stride, int64_t num_slots, const int32_t* slots, const int32_t* cu_seqlens,
                           const int32_t* seq_lens, const int32_t* row_slots, int64_t num_sequences, int64_t num_rows,
                           int64_t num_key_heads, int64_t num_heads, int is_tiled, int64_t key_dim, int64_t value_dim,
                           void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, num_key_heads, num_heads, key_dim, value_dim) || num_heads % num_key_heads != 0 ||
        key_dim > kMaxStateDepth || q_stride < num_key_heads * key_dim || k_stride < num_key_heads * key_dim ||
        v_stride < num_heads * value_dim || out_stride < num_heads * value_dim ||
        (decay_dim != 1 && decay_dim != key_dim) || log_decay_stride < num_heads * decay_dim || beta_stride < num_heads)
        return PARLOR_ERROR_SIZE;
    if (!aligned(q) || !aligned(k) || !aligned(v) || !aligned(log_decay) || !aligned(beta) || !aligned(out))
        return PARLOR_ERROR_POINTER;
    const Sequences sequences{states, slot_stride, slots, cu_seqlens, seq_lens, row_slots, num_sequences};
    if (const int error = check(sequences, num_slots, num_heads * key_dim * value_dim, num_rows)) return error;
    return PARLOR_PICK(delta_rule)({q, k, v, q_stride, k_stride, v_stride, log_decay, beta, log_decay_stride, beta_stride,
                                    out, out_stride, sequences, num_rows, num_key_heads, num_heads, is_tiled != 0,
                                    key_dim, value_dim, decay_dim});
}

extern "C" int mamba2(const float* x, int64_t x_stride, const float* b, int64_t b_stride, const float* c,
                      int64_t c_stride, const float* dt, int64_t dt_stride, const float* a, const float* d, float* out,
                      int64_t out_stride, float* states, int64_t slot_stride, int64_t num_slots, const int32_t* slots,
                      const int32_t* cu_seqlens, const int32_t* seq_lens, const int32_t* row_slots,
                      int64_t num_sequences, int64_t num_rows, int64_t num_groups, int64_t num_heads,
                      int64_t state_size, int64_t head_dim, void*) {
    if (num_rows == 0) return PARLOR_OK;
    if (!all_positive(num_rows, num_groups, num_heads, state_size, head_dim) || num_heads % num_groups != 0 ||
        state_size > kMaxStateDepth || x_stride < num_heads * head_dim || b_stride < num_groups * state_size ||
        c_stride < num_groups * state_size || dt_stride < num_heads || out_stride < num_heads * head_dim)
        return PARLOR_ERROR_SIZE;
    if (!aligned(x) || !aligned(b) || !aligned(c) || !aligned(dt) || !aligned(a) || !aligned_or_null(d) || !aligned(out))
        return PARLOR_ERROR_POINTER;
    const Sequences sequences{states, slot_stride, slots, cu_seqlens, seq_lens, row_slots, num_sequences};
    if (const int error = check(sequences, num_slots, num_heads * state_size * head_dim, num_rows)) return error;
    PARLOR_PICK(scan_mamba)({x, b, c, x_stride, b_stride, c_stride, dt, dt_stride, a, d, out, out_stride, sequences,
                             num_groups, num_heads, state_size, head_dim});
    return PARLOR_OK;
}
