// Weights in small groups times float32 activations, for --exact and compiled for each set: plain loops over 16 outputs.
//
// Bound by widening the codes; four additions of a lane wait for each other less than one would.
#include "groups.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// The weights of one block, [columns][16].
void widen_block(const linear_weight& w, const GroupStream& stream, const Block& block, float (*weights)[kLanes]) {
    const int64_t first = block.source, group = block.group;
    const uint8_t* const unit = stream.codes + first / kGroupUnit * unit_lines(w.kind) * 64;
    float scales[kLanes], least[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        scales[lane] = group_scale(w, stream, group, lane) * group_factor(stream, lane);
        least[lane] = group_min(w, stream, group, lane);
        if (has_steps(w)) {
            const int64_t step = first / kSharedColumns * kLanes + lane;
            scales[lane] *= half_to_float(stream.steps[step]);
            if (stream.mins) least[lane] *= half_to_float(stream.min_steps[step]);
        }
    }
    const float zero = w.zero_kind == PARLOR_ZERO_ONE ? static_cast<float>(w.zero) : 0.0f;
    for (int64_t column = 0; column < block.length; ++column) {
        const int within = static_cast<int>((first + column) % kGroupUnit);
        for (int64_t lane = 0; lane < kLanes; ++lane)
            weights[column][lane] =
                (static_cast<float>(group_code(w, unit, within, lane)) - zero) * scales[lane] - least[lane];
    }
}

}  // namespace

void group_exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const GroupStream stream = group_stream(w, row_block);
        const float* x = static_cast<const float*>(tile.codes[0]);
        float sums[8][kLanes] = {};
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            const Block& block = blocks_of(w)[b];
            float weights[kGroupUnit][kLanes];
            widen_block(w, stream, block, weights);
            for (int row = 0; row < tile.rows; ++row, x += block.length) {
                float partial[kLanes] = {};
                for (int64_t column = 0; column < block.length; ++column) {
                    for (int64_t lane = 0; lane < kLanes; ++lane)
                        partial[lane] = multiply_add(weights[column][lane], x[column], partial[lane]);
                }
                for (int64_t lane = 0; lane < kLanes; ++lane) sums[row][lane] += partial[lane];
            }
        }
        const int64_t column = row_block * kLanes;
        const int64_t lanes = w.n - column < kLanes ? w.n - column : kLanes;
        for (int row = 0; row < output.rows; ++row) {
            float* const out = output.out + row * output.stride + column;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const float sum = w.bias ? sums[row][lane] + w.bias[column + lane] : sums[row][lane];
                out[lane] = output.accumulate ? out[lane] + sum : sum;
            }
        }
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
