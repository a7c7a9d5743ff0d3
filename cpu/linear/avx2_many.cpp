// Exact and dense weights for many rows with AVX2, in float32.
//
// Bound by the multiplier: two fused multiply-adds a cycle. So a section of the weight (a block of columns of two row blocks) is
// widened once for all rows into a panel of 16 KiB, half of the first-level cache; tiles of up to six rows go over it with
// their sums of 16 outputs in 12 registers. Rounded weights: panels.cpp.
#include "avx2.h"
#include "panel_memory.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kTileRows = 6;
constexpr int64_t kPanelRowBlocks = 2;
constexpr int64_t kTileFloats = kTileRows * kLanes;
constexpr int64_t kDenseColumns = 128;  // of a section of dense values

// A section of one row block.
struct alignas(64) Panel {
    float weights[kSpanColumns * kLanes];  // [columns][16 outputs]
};

using Memory = PanelMemory<Panel, kTileRows, kPanelRowBlocks>;

// sums [kRows][16] += x [kRows][columns] * weights [columns][16]
template <int kRows>
void add_columns(const float* weights, int64_t columns, const float* x, int64_t x_stride, float* sums) {
    Halves own[kRows];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) own[r] = load_floats(sums + r * kLanes);
    for (int64_t column = 0; column < columns; ++column, weights += kLanes) {
        const Halves weight = load_floats(weights);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const __m256 value = _mm256_set1_ps(x[r * x_stride + column]);
            add_products(&own[r].low, weight.low, value);
            add_products(&own[r].high, weight.high, value);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) store_floats(sums + r * kLanes, own[r]);
}

void add_columns_of(int rows, const float* weights, int64_t columns, const float* x, int64_t x_stride, float* sums) {
    static constexpr decltype(&add_columns<1>) kAdd[] = {add_columns<1>, add_columns<2>, add_columns<3>,
                                                         add_columns<4>, add_columns<5>, add_columns<6>};
    kAdd[rows - 1](weights, columns, x, x_stride, sums);
}

// code - zero of a block, in the order of the columns.
template <int kBits>
void widen_block(const uint8_t* codes, int columns, const Halves& zeros, float* target) {
    constexpr int kLineColumns = 32 / kBits;
    const __m256i code_mask = _mm256_set1_epi32((1 << kBits) - 1);
    for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
        const __m256i low = load_line(codes), high = load_line(codes + 32);
#pragma GCC unroll 8
        for (int k = 0; k < kLineColumns; ++k, target += kLanes) {
            const int shift = kBits == 4 ? k % 4 * 8 + k / 4 * 4 : k * 8;
            const __m256i low_codes = _mm256_and_si256(_mm256_srli_epi32(low, shift), code_mask);
            const __m256i high_codes = _mm256_and_si256(_mm256_srli_epi32(high, shift), code_mask);
            store_floats(target, {_mm256_sub_ps(_mm256_cvtepi32_ps(low_codes), zeros.low),
                                  _mm256_sub_ps(_mm256_cvtepi32_ps(high_codes), zeros.high)});
        }
    }
}

void multiply_exact(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t count,
                    const Memory& memory) {
    const int64_t column_bytes = w.kind == PARLOR_LINEAR_Q4 ? kLanes / 2 : kLanes;
    int64_t column = 0;
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const Block& block = blocks_of(w)[b];
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t* const codes = static_cast<const uint8_t*>(w.codes) + (first + i) * row_block_bytes(w);
            const Halves zeros = load_zeros(w, first + i, block.group);
            (w.kind == PARLOR_LINEAR_Q4 ? widen_block<4> : widen_block<8>)(codes + column * column_bytes, block.length,
                                                                          zeros, memory.panels[i].weights);
        }
        for (int64_t t = 0; t < num_tiles; ++t) {
            const float* const x = static_cast<const float*>(tiles[t].codes[0]) + column * tiles[t].rows;
            for (int64_t i = 0; i < count; ++i) {
                alignas(32) float partial[kTileFloats] = {};
                add_columns_of(tiles[t].rows, memory.panels[i].weights, block.length, x, block.length, partial);
                const Halves scales = load_scales(w, first + i, block.group);
                float* const sums = memory.sums_of(t, i);
                for (int64_t r = 0; r < tiles[t].rows * kLanes; r += kLanes)
                    store_floats(sums + r, multiply_add(load_floats(partial + r), scales, load_floats(sums + r)));
            }
        }
        column += block.length;
    }
}

// Call work(first, count) for the row blocks that are worked off together.
template <class Work>
void for_panels(int64_t first, int64_t last, Work work) {
    for (int64_t begin = first; begin < last; begin += kPanelRowBlocks)
        work(begin, last - begin < kPanelRowBlocks ? last - begin : kPanelRowBlocks);
}

void store_tile(const linear_weight& w, const Memory& memory, int64_t tile, int64_t first, int64_t count,
                int64_t first_row, int64_t rows, const Output& output) {
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t r = 0; r < rows; ++r)
            store(w, load_floats(memory.sums_of(tile, i) + r * kLanes), first + i,
                  output.out + (first_row + r) * output.stride, output.accumulate);
    }
}

void exact(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t last,
               const Output& output, void* own) {
    const Memory memory(own);
    for_panels(first, last, [&](int64_t begin, int64_t count) {
        memory.clear(num_tiles);
        multiply_exact(w, tiles, num_tiles, begin, count, memory);
        for (int64_t t = 0; t < num_tiles; ++t)
            store_tile(w, memory, t, begin, count, tiles[t].first_row, tiles[t].filled, output);
    });
}

template <int kKind>
void widen_columns(const linear_weight& w, int64_t row_block, int64_t first, int64_t last, float* target) {
    const char* const values = static_cast<const char*>(w.codes) + row_block * row_block_bytes(w);
    Halves factors = zero_floats();
    for (int64_t k = first; k < last; ++k, target += kLanes) {
        if (kKind == PARLOR_LINEAR_F8 && (k == first || k % w.group_size == 0)) factors = column_factors(w, row_block, k);
        store_floats(target, load_column<kKind>(values, k, factors));
    }
}

void dense(const linear_weight& w, const Input& input, int64_t first, int64_t last, const Output& output, void* own) {
    const Memory memory(own);
    const auto widen = w.kind == PARLOR_LINEAR_F16 ? widen_columns<PARLOR_LINEAR_F16>
        : w.kind == PARLOR_LINEAR_BF16 ? widen_columns<PARLOR_LINEAR_BF16>
        : w.kind == PARLOR_LINEAR_F8 ? widen_columns<PARLOR_LINEAR_F8> : widen_columns<PARLOR_LINEAR_F32>;
    const int64_t num_tiles = (input.rows + kTileRows - 1) / kTileRows;
    const auto rows_of = [&](int64_t tile) {
        const int64_t left = input.rows - tile * kTileRows;
        return static_cast<int>(left < kTileRows ? left : kTileRows);
    };
    for_panels(first, last, [&](int64_t begin, int64_t count) {
        memory.clear(num_tiles);
        for (int64_t column = 0; column < w.k; column += kDenseColumns) {
            const int64_t columns = w.k - column < kDenseColumns ? w.k - column : kDenseColumns;
            for (int64_t i = 0; i < count; ++i)
                widen(w, begin + i, column, column + columns, memory.panels[i].weights);
            for (int64_t t = 0; t < num_tiles; ++t) {
                for (int64_t i = 0; i < count; ++i)
                    add_columns_of(rows_of(t), memory.panels[i].weights, columns,
                                   input.x + t * kTileRows * input.stride + column, input.stride, memory.sums_of(t, i));
            }
        }
        for (int64_t t = 0; t < num_tiles; ++t)
            store_tile(w, memory, t, begin, count, t * kTileRows, rows_of(t), output);
    });
}

}  // namespace

ManyRowKernels many_row_kernels() {
    return {kTileRows, [](int rows) { return rows; }, kPanelRowBlocks, Memory::bytes, exact, dense, nullptr};
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
