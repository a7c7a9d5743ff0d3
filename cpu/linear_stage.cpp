// Rows of x made ready for the linear kernels: permuted, padded block by block, and rounded to int8.
//
// Bound by reading x twice from the first-level cache. Plain loops: the compiler vectorises them for each set.
// int8: code = round(x / scale), scale = max |x| of the span / 127. A span with NaN gets a NaN scale, so it
// shows in the result.
#include <cstring>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits of the sum.
constexpr float kRounder = 12582912.0f;
constexpr uint32_t kRounderBits = 0x4B400000;
constexpr uint32_t kTiny = 0x0DA24260;  // 1e-30f: below, 127 / max would overflow; such a span counts as zeros

inline uint32_t float_bits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The columns of a block in the order of the codes, padded with zeros.
void gather(const linear_weight& w, const Block& block, const float* x, float* values) {
    if (w.perm) {
        const int32_t* perm = w.perm + block.source;
        for (int i = 0; i < block.filled; ++i) values[i] = x[perm[i]];
    } else {
        std::memcpy(values, x + block.source, sizeof(float) * block.filled);
    }
    std::memset(values + block.filled, 0, sizeof(float) * (block.length - block.filled));
}

// Lengths are multiples of kColumnUnit; a fixed inner loop is what compilers turn into whole registers.
float largest_magnitude(const float* values, int length) {
    uint32_t lanes[kColumnUnit] = {};  // as an integer |x| orders like the float, and NaN comes out on top
    for (int i = 0; i < length; i += kColumnUnit) {
        for (int j = 0; j < kColumnUnit; ++j) {
            const uint32_t magnitude = float_bits(values[i + j]) & 0x7FFFFFFF;
            lanes[j] = magnitude > lanes[j] ? magnitude : lanes[j];
        }
    }
    uint32_t largest = 0;
    for (const uint32_t magnitude : lanes) largest = magnitude > largest ? magnitude : largest;
    return largest < kTiny ? 0.0f : bits_to_float(largest);
}

// codes = round(values * inverse); returns their sum.
int32_t round_block(const float* values, int length, float inverse, int8_t* codes) {
    int32_t lanes[kColumnUnit] = {};
    for (int i = 0; i < length; i += kColumnUnit) {
        for (int j = 0; j < kColumnUnit; ++j) {
            const int32_t code = static_cast<int32_t>(float_bits(values[i + j] * inverse + kRounder) - kRounderBits);
            codes[i + j] = static_cast<int8_t>(code);
            lanes[j] += code;
        }
    }
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    return sum;
}

float offset_of(const linear_weight& w, int32_t sum) {
    if (w.zero_kind != PARLOR_ZERO_ONE) return static_cast<float>(sum);
    return bits_to_float(static_cast<uint32_t>(-w.zero * sum));
}

// One row of a span. codes, offsets: where the row's codes of the first block and its first offset go.
float stage_span(const linear_weight& w, const Span& span, const float* x, int row, int tile_rows, int8_t* codes,
                 float* offsets) {
    alignas(64) float values[kSpanColumns];
    const Block* const blocks = blocks_of(w);
    float* end = values;
    for (int b = span.first_block; b < span.last_block; end += blocks[b++].length) gather(w, blocks[b], x, end);
    const float largest = largest_magnitude(values, span.columns);
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    const float* block_values = values;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int length = blocks[b].length;
        const int32_t sum = round_block(block_values, length, inverse, codes + row * length);
        offsets[row] = offset_of(w, sum);
        block_values += length;
        codes += tile_rows * length;
        offsets += tile_rows;
    }
    return largest * (1.0f / 127.0f);
}

void clear_span(const linear_weight& w, const Span& span, int row, int tile_rows, int8_t* codes, float* offsets) {
    for (int b = span.first_block; b < span.last_block; ++b, offsets += tile_rows) {
        const int length = blocks_of(w)[b].length;
        std::memset(codes + row * length, 0, length);
        offsets[row] = 0.0f;
        codes += tile_rows * length;
    }
}

}  // namespace

void stage_int8(const linear_weight& w, const float* x, int64_t x_stride, int rows, int tile_rows, int8_t* codes,
                float* scales, float* offsets) {
    const Span* const spans = spans_of(w);
    for (int64_t s = 0; s < w.num_spans; ++s) {
        int8_t* const span_codes = codes + static_cast<int64_t>(spans[s].first_column) * tile_rows;
        float* const span_offsets = offsets + static_cast<int64_t>(spans[s].first_block) * tile_rows;
        for (int row = 0; row < tile_rows; ++row) {
            float& scale = scales[s * tile_rows + row];
            scale = 0.0f;
            if (row < rows)
                scale = stage_span(w, spans[s], x + row * x_stride, row, tile_rows, span_codes, span_offsets);
            else clear_span(w, spans[s], row, tile_rows, span_codes, span_offsets);
        }
    }
}

void stage_float(const linear_weight& w, const float* x, int64_t x_stride, int rows, int tile_rows, float* values) {
    const Block* blocks = blocks_of(w);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        for (int row = 0; row < tile_rows; ++row, values += blocks[b].length) {
            if (row < rows) gather(w, blocks[b], x + row * x_stride, values);
            else std::memset(values, 0, sizeof(float) * blocks[b].length);
        }
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
