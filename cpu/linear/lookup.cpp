// Rows of packed weights as float32: embeddings that lie as they do in a file, and serve as the head, too.
//
// Bound by the lines of 64 bytes that a row is spread over, of which it uses four bytes each: 4096 columns of 4 bits are
// 32 KiB.
#include "groups.h"
#include "thread_team.h"

namespace parlor {
namespace {

int plain_code(const linear_weight& w, const uint8_t* codes, int64_t column, int64_t lane) {
    if (w.kind == PARLOR_LINEAR_Q8) return codes[column / 4 * 64 + lane * 4 + column % 4];
    return codes[column / 8 * 64 + lane * 4 + column % 4] >> column % 8 / 4 * 4 & 15;
}

void plain_row(const linear_weight& w, int64_t row, float scale, float* out) {
    const int64_t row_block = row / kLanes, lane = row % kLanes;
    const uint8_t* const codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w);
    const uint16_t* const scales = w.scales + row_block * w.num_groups * kLanes + lane;
    for (int64_t column = 0; column < w.k; ++column) {
        const float step = half_to_float(scales[column / w.group_size * kLanes]);
        out[column] = static_cast<float>(plain_code(w, codes, column, lane) - w.zero) * step * scale;
    }
}

void grouped_row(const linear_weight& w, int64_t row, float scale, float* out) {
    const GroupStream stream = group_stream(w, row / kLanes);
    const int64_t lane = row % kLanes;
    const float zero = w.zero_kind == PARLOR_ZERO_ONE ? static_cast<float>(w.zero) : 0.0f;
    for (int64_t group = 0; group < w.num_groups; ++group) {
        const int64_t first = group * w.group_size;
        float step = group_scale(w, stream, group, lane) * group_factor(stream, lane), least = group_min(w, stream, group, lane);
        if (has_steps(w)) {
            const int64_t place = first / kSharedColumns * kLanes + lane;
            step *= half_to_float(stream.steps[place]);
            if (stream.mins) least *= half_to_float(stream.min_steps[place]);
        }
        for (int64_t i = 0; i < w.group_size; ++i) {
            const uint8_t* const unit = stream.codes + (first + i) / kGroupUnit * unit_lines(w.kind) * 64;
            const int code = group_code(w, unit, static_cast<int>((first + i) % kGroupUnit), lane);
            out[first + i] = ((static_cast<float>(code) - zero) * step - least) * scale;
        }
    }
}

void float8_row(const linear_weight& w, int64_t row, float scale, float* out) {
    const int64_t row_block = row / kLanes, lane = row % kLanes;
    const uint8_t* const values = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) + lane * 2;
    for (int64_t column = 0; column < w.k; ++column) {
        const float value = half_to_float(e4m3_as_half(values[column / 2 * kLanes * 2 + column % 2]));
        out[column] = value * (w.factors[row] * block_scale(w, row_block, column / w.group_size)) * scale;
    }
}

}  // namespace
}  // namespace parlor

extern "C" int embed_packed(const linear_weight* weight, const int32_t* token_ids, float* out, float scale,
                            int64_t num_tokens, void*) {
    using namespace parlor;
    if (!weight || !weight->codes) return PARLOR_ERROR_POINTER;
    const linear_weight& w = *weight;
    const bool is_plain = !is_grouped(w) && is_quantized(w);
    const bool is_float8 = w.kind == PARLOR_LINEAR_F8;
    if (!is_plain && !is_grouped(w) && !is_float8) return PARLOR_ERROR_DTYPE;
    if (w.perm || (is_plain && (w.zero_kind != PARLOR_ZERO_ONE || w.padded_k != w.k))) return PARLOR_ERROR_VALUE;
    if (num_tokens < 0) return PARLOR_ERROR_SIZE;
    if (num_tokens > 0 && (!token_ids || !out)) return PARLOR_ERROR_POINTER;
    for (int64_t i = 0; i < num_tokens; ++i)
        if (token_ids[i] < 0 || token_ids[i] >= w.n) return PARLOR_ERROR_INDEX;
    team().parallel_for(num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            (is_plain ? plain_row : is_float8 ? float8_row : grouped_row)(w, token_ids[i], scale, out + i * w.k);
    });
    return PARLOR_OK;
}
