// Weights in small groups in plain C++, for any processor: the same arithmetic as the other sets, one row block at a time.
#include "groups.h"

namespace parlor {
namespace plain {
namespace {

constexpr int kMaxRows = 8;

inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

struct Sums {
    float all[kMaxRows][kLanes] = {}, part[kMaxRows][kLanes] = {}, least[kMaxRows][kLanes] = {};
};

void end_span(const linear_weight& w, const GroupStream& stream, int64_t span, const Tile& tile, Sums* sums) {
    for (int row = 0; row < tile.rows; ++row) {
        const float x_scale = tile.scales[span * tile.rows + row];
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            float total = sums->part[row][lane];
            if (has_steps(w)) {
                const float step = half_to_float(stream.steps[span * kLanes + lane]);
                const float min_step = stream.mins ? half_to_float(stream.min_steps[span * kLanes + lane]) : 0.0f;
                total = stream.mins ? multiply_add(total, step, -(sums->least[row][lane] * min_step)) : total * step;
            } else {
                total -= sums->least[row][lane];
            }
            sums->all[row][lane] = multiply_add(total, x_scale, sums->all[row][lane]);
            sums->part[row][lane] = sums->least[row][lane] = 0.0f;
        }
    }
}

void add_block(const linear_weight& w, const GroupStream& stream, int64_t index, const Tile& tile, const int16_t* x,
               Sums* sums) {
    const Block& block = blocks_of(w)[index];
    const int size = block.length;
    const int64_t first = block.source, group = block.group;
    const uint8_t* const unit = stream.codes + first / kGroupUnit * unit_lines(w.kind) * 64;
    int codes[kGroupUnit][kLanes];
    for (int column = 0; column < size; ++column) {
        for (int64_t lane = 0; lane < kLanes; ++lane)
            codes[column][lane] = group_code(w, unit, static_cast<int>((first + column) % kGroupUnit), lane);
    }
    for (int row = 0; row < tile.rows; ++row, x += size) {
        const float offset = tile.offsets[index * tile.rows + row];
        int32_t start = 0;
        if (!stream.mins) __builtin_memcpy(&start, &offset, sizeof start);
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            int32_t dot = start;
            for (int column = 0; column < size; ++column) dot += codes[column][lane] * x[column];
            float* const part = &sums->part[row][lane];
            *part = multiply_add(static_cast<float>(dot), group_scale(w, stream, group, lane), *part);
            float* const least = &sums->least[row][lane];
            if (stream.mins) *least = multiply_add(offset, group_min(w, stream, group, lane), *least);
        }
    }
}

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const GroupStream stream = group_stream(w, row_block);
        const int16_t* x = static_cast<const int16_t*>(tile.codes[0]);
        Sums sums;
        const Span* span = spans_of(w);
        for (int64_t b = 0; b < w.num_blocks; x += tile.rows * blocks_of(w)[b++].length) {
            add_block(w, stream, b, tile, x, &sums);
            if (b + 1 < span->last_block) continue;
            end_span(w, stream, span - spans_of(w), tile, &sums);
            ++span;
        }
        const int64_t column = row_block * kLanes;
        const int64_t lanes = w.n - column < kLanes ? w.n - column : kLanes;
        for (int row = 0; row < output.rows; ++row) {
            float* const out = output.out + row * output.stride + column;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const float sum = sums.all[row][lane] * group_factor(stream, lane) + (w.bias ? w.bias[column + lane] : 0.0f);
                out[lane] = output.accumulate ? out[lane] + sum : sum;
            }
        }
    }
}

}  // namespace

LinearKernels group_kernels() {
    return {kMaxRows, [](int rows) { return rows; }, rounded_rows, group_exact_rows, nullptr};
}

}  // namespace plain
}  // namespace parlor
