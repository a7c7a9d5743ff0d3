// The linear layer in plain C++, for any processor: the same arithmetic as the other sets, one row block at a time.
//
// Bound by unpacking, which is shared by all rows of a tile; the loops over 16 outputs are left to the compiler.
#include "linear.h"

namespace parlor {
namespace plain {
namespace {

constexpr int kMaxRows = 8;
constexpr int64_t kChunk = 128;  // columns that are unpacked at a time

inline float multiply_add(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

// codes of `length` columns -> [length / 4][16][4] bytes; returns the codes behind them
const uint8_t* unpack(const linear_weight& w, const uint8_t* codes, int length, uint8_t* bytes) {
    if (w.kind == PARLOR_LINEAR_Q8) {
        __builtin_memcpy(bytes, codes, length * kLanes);
        return codes + length * kLanes;
    }
    for (int line = 0; line < length / 8; ++line, codes += 64, bytes += 128) {
        for (int i = 0; i < 64; ++i) {
            bytes[i] = codes[i] & 15;
            bytes[64 + i] = codes[i] >> 4;
        }
    }
    return codes;
}

void load_zeros(const linear_weight& w, int64_t row_block, int64_t group, float* zeros) {
    const int64_t index = (row_block * w.num_groups + group) * kLanes;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        if (w.zero_kind == PARLOR_ZERO_ONE) zeros[lane] = static_cast<float>(w.zero);
        else if (w.zero_kind == PARLOR_ZERO_U8) zeros[lane] = static_cast<const uint8_t*>(w.zeros)[index + lane];
        else zeros[lane] = half_to_float(static_cast<const uint16_t*>(w.zeros)[index + lane]);
    }
}

void load_scales(const linear_weight& w, int64_t row_block, int64_t group, float* scales) {
    const uint16_t* source = w.scales + (row_block * w.num_groups + group) * kLanes;
    for (int64_t lane = 0; lane < kLanes; ++lane) scales[lane] = half_to_float(source[lane]);
}

void store(const linear_weight& w, const float (*sums)[kLanes], int64_t row_block, const Output& output) {
    const int64_t first = row_block * kLanes;
    const int64_t lanes = w.n - first < kLanes ? w.n - first : kLanes;
    for (int row = 0; row < output.rows; ++row) {
        float* const out = output.out + row * output.stride + first;
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const float sum = sums[row][lane] + (w.bias ? w.bias[first + lane] : 0.0f);
            out[lane] = output.accumulate ? out[lane] + sum : sum;
        }
    }
}

void dot(const uint8_t* bytes, const int16_t* x, int length, int32_t* dots) {
    for (int k = 0; k < length; k += 4, bytes += 64, x += 4) {
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int i = 0; i < 4; ++i) dots[lane] += bytes[lane * 4 + i] * x[i];
        }
    }
}

// part += (dots - zeros * sum of x) * scales, see linear.h; for PARLOR_ZERO_ONE `offset` holds an integer.
void add_block(const linear_weight& w, const int32_t* dots, float offset, const float* zeros, const float* scales,
               float* part) {
    int32_t start;
    __builtin_memcpy(&start, &offset, sizeof start);
    for (int lane = 0; lane < kLanes; ++lane) {
        const float value = w.zero_kind == PARLOR_ZERO_ONE
            ? static_cast<float>(dots[lane] + start)
            : multiply_add(-zeros[lane], offset, static_cast<float>(dots[lane]));
        part[lane] = multiply_add(value, scales[lane], part[lane]);
    }
}

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const Block* blocks = blocks_of(w);
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w);
        const int16_t* x = static_cast<const int16_t*>(tile.codes[0]);
        float sums[kMaxRows][kLanes] = {}, parts[kMaxRows][kLanes] = {};
        const Span* span = spans_of(w);
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            alignas(64) uint8_t bytes[kSpanColumns * kLanes];
            float scales[kLanes], zeros[kLanes];
            const int length = blocks[b].length;
            codes = unpack(w, codes, length, bytes);
            load_scales(w, row_block, blocks[b].group, scales);
            load_zeros(w, row_block, blocks[b].group, zeros);
            for (int row = 0; row < tile.rows; ++row, x += length) {
                int32_t dots[kLanes] = {};
                dot(bytes, x, length, dots);
                add_block(w, dots, tile.offsets[b * tile.rows + row], zeros, scales, parts[row]);
            }
            if (b + 1 < span->last_block) continue;
            for (int row = 0; row < tile.rows; ++row) {
                const float scale = tile.scales[(span - spans_of(w)) * tile.rows + row];
                for (int lane = 0; lane < kLanes; ++lane) {
                    sums[row][lane] = multiply_add(parts[row][lane], scale, sums[row][lane]);
                    parts[row][lane] = 0.0f;
                }
            }
            ++span;
        }
        store(w, sums, row_block, output);
    }
}

// sums[lane] += weights[k][lane] * x[k]
void multiply(const float (*weights)[kLanes], const float* x, int64_t length, float* sums) {
    for (int64_t k = 0; k < length; ++k) {
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] = multiply_add(weights[k][lane], x[k], sums[lane]);
    }
}

void exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const Block* blocks = blocks_of(w);
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w);
        const float* x = static_cast<const float*>(tile.codes[0]);
        float sums[kMaxRows][kLanes] = {};
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            uint8_t bytes[kSpanColumns * kLanes];
            float weights[kSpanColumns][kLanes], scales[kLanes], zeros[kLanes];
            const int length = blocks[b].length;
            codes = unpack(w, codes, length, bytes);
            load_scales(w, row_block, blocks[b].group, scales);
            load_zeros(w, row_block, blocks[b].group, zeros);
            for (int k = 0; k < length; ++k) {
                for (int64_t lane = 0; lane < kLanes; ++lane)
                    weights[k][lane] = bytes[(k / 4 * kLanes + lane) * 4 + k % 4] - zeros[lane];
            }
            for (int row = 0; row < tile.rows; ++row, x += length) {
                float partial[kLanes] = {};
                multiply(weights, x, length, partial);
                for (int64_t lane = 0; lane < kLanes; ++lane)
                    sums[row][lane] = multiply_add(partial[lane], scales[lane], sums[row][lane]);
            }
        }
        store(w, sums, row_block, output);
    }
}

float dense_value(const linear_weight& w, int64_t row_block, const void* values, int64_t column, int64_t lane) {
    if (w.kind == PARLOR_LINEAR_F8) {
        const uint8_t byte = static_cast<const uint8_t*>(values)[(column / 2 * kLanes + lane) * 2 + column % 2];
        const float factor = w.factors[row_block * kLanes + lane] * block_scale(w, row_block, column / w.group_size);
        return half_to_float(e4m3_as_half(byte)) * factor;
    }
    if (w.kind == PARLOR_LINEAR_F32) return static_cast<const float*>(values)[column * kLanes + lane];
    const uint16_t* halves = static_cast<const uint16_t*>(values);
    if (w.kind == PARLOR_LINEAR_F16) return half_to_float(halves[column * kLanes + lane]);
    return bits_to_float(static_cast<uint32_t>(halves[(column / 2 * kLanes + lane) * 2 + column % 2]) << 16);
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const char* values = static_cast<const char*>(w.codes) + row_block * row_block_bytes(w);
        float sums[kMaxRows][kLanes] = {};
        for (int64_t begin = 0; begin < w.k; begin += kChunk) {
            float weights[kChunk][kLanes];
            const int64_t length = w.k - begin < kChunk ? w.k - begin : kChunk;
            for (int64_t k = 0; k < length; ++k) {
                for (int64_t lane = 0; lane < kLanes; ++lane)
                    weights[k][lane] = dense_value(w, row_block, values, begin + k, lane);
            }
            for (int row = 0; row < output.rows; ++row) multiply(weights, x + row * x_stride + begin, length, sums[row]);
        }
        store(w, sums, row_block, output);
    }
}

}  // namespace

LinearKernels linear_kernels() { return {kMaxRows, [](int rows) { return rows; }, rounded_rows, exact_rows, dense_rows}; }

}  // namespace plain
}  // namespace parlor
