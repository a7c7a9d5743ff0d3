// Rows of x made ready for the linear kernels: permuted, padded block by block, and rounded to int8.
//
// Bound by reading x twice from the first-level cache. Plain loops: the compiler vectorises them for each set.
// int8: code = round(x / scale), scale = max |x| of the block / 127. A block with NaN gets a NaN scale, so it
// shows in the result.
#include <cstring>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits of the sum.
constexpr float kRounder = 12582912.0f;
constexpr uint32_t kRounderBits = 0x4B400000;
constexpr uint32_t kTiny = 0x0DA24260;  // 1e-30f: below, 127 / max would overflow; such a block counts as zeros

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

// Returns the scale; *sum is the sum of the codes.
float round_block(const float* values, int length, int8_t* codes, int32_t* sum) {
    uint32_t largest = 0;  // of |x| as an integer: orders like the float, and NaN comes out on top
    for (int i = 0; i < length; ++i) {
        const uint32_t magnitude = float_bits(values[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float inverse = largest < kTiny ? 0.0f : 127.0f / bits_to_float(largest);
    int32_t total = 0;
    for (int i = 0; i < length; ++i) {
        const int32_t code = static_cast<int32_t>(float_bits(values[i] * inverse + kRounder) - kRounderBits);
        codes[i] = static_cast<int8_t>(code);
        total += static_cast<int8_t>(code);
    }
    *sum = total;
    return largest < kTiny ? 0.0f : bits_to_float(largest) * (1.0f / 127.0f);
}

}  // namespace

void stage_int8(const linear_weight& w, const float* x, int64_t x_stride, int rows, int tile_rows, int8_t* codes,
                float* scales, float* offsets) {
    alignas(64) float values[kBlockColumns];
    const Block* blocks = blocks_of(w);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const int length = blocks[b].length;
        for (int row = 0; row < tile_rows; ++row, codes += length, ++scales, ++offsets) {
            int32_t sum = 0;
            *scales = 0.0f;
            if (row < rows) {
                gather(w, blocks[b], x + row * x_stride, values);
                *scales = round_block(values, length, codes, &sum);
            } else {
                std::memset(codes, 0, length);
            }
            if (w.zero_kind == PARLOR_ZERO_ONE) {
                const int32_t offset = -w.zero * sum;
                __builtin_memcpy(offsets, &offset, sizeof offset);
            } else {
                *offsets = static_cast<float>(sum);
            }
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
