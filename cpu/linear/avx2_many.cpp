// The linear layer for many rows with AVX2.
//
// Bound by the multiplier: two vpmaddwd a cycle at most, each with a vpaddd. So a section of the weight (256 columns of two
// row blocks) is unpacked once for all rows into a panel of 16 KiB, half of the first-level cache; tiles of up to six rows
// go over it with their sums of 16 outputs in 12 registers: two loads of the panel and six of x for 12 products, where the
// multiplier takes as long as for twelve loads.
// Exact and dense weights take the same way in float32, with panels of floats.
#include "avx2.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kTileRows = 6;
constexpr int64_t kPanelRowBlocks = 2;
constexpr int64_t kTileFloats = kTileRows * kLanes;
constexpr int64_t kMaxBlocks = kSpanColumns / kColumnUnit;  // of a span
constexpr int64_t kDenseColumns = 128;                      // of a section of dense values

// A section of one row block.
struct alignas(64) Panel {
    union {
        int16_t codes[kSpanColumns * kLanes];  // [columns / 2][16 outputs][2], in the order of kPairOrder
        float weights[kSpanColumns * kLanes];  // [columns][16 outputs]
    };
    float scales[kMaxBlocks][kLanes];
    float zeros[kMaxBlocks][kLanes];  // if not in the codes already
};

// Memory of a thread: the panels, then sums [tile][row block][kTileRows][16].
struct Memory {
    Panel* panels;
    float* sums;

    explicit Memory(void* memory)
        : panels(static_cast<Panel*>(memory)), sums(reinterpret_cast<float*>(panels + kPanelRowBlocks)) {}

    float* sums_of(int64_t tile, int64_t i) const { return sums + (tile * kPanelRowBlocks + i) * kTileFloats; }
    void clear(int64_t num_tiles) const {
        __builtin_memset(sums, 0, num_tiles * kPanelRowBlocks * kTileFloats * sizeof(float));
    }
};

int64_t bytes(int64_t rows) {
    const int64_t num_tiles = (rows + kTileRows - 1) / kTileRows;
    const int64_t sum_bytes = kTileFloats * static_cast<int64_t>(sizeof(float)) * num_tiles;
    return kPanelRowBlocks * (static_cast<int64_t>(sizeof(Panel)) + sum_bytes);
}

// Whole zero points can be taken from the codes before they are multiplied: the same integers as afterwards. (Of 8-bit
// codes only one for all: linear.h has the others subtracted as floats.)
inline bool zeros_in_codes(const linear_weight& w) {
    return w.zero_kind == PARLOR_ZERO_ONE || (w.zero_kind == PARLOR_ZERO_U8 && w.kind == PARLOR_LINEAR_Q4);
}

// Eight zero points, twice each, as code_pairs() has the codes.
inline __m256i zero_pairs(const linear_weight& w, int64_t index) {
    if (w.zero_kind == PARLOR_ZERO_ONE) return _mm256_set1_epi16(static_cast<int16_t>(w.zero));
    const uint8_t* const bytes = static_cast<const uint8_t*>(w.zeros) + index;
    const __m256i zeros = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    return _mm256_or_si256(zeros, _mm256_slli_epi32(zeros, 16));
}

template <int kBits>
void unpack_block(const uint8_t* codes, int columns, int64_t ahead, __m256i low_zeros, __m256i high_zeros,
                  int16_t* target) {
    constexpr int kLineColumns = 32 / kBits;
    for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + ahead, _MM_HINT_T1);
        const __m256i low = load_line(codes), high = load_line(codes + 32);
#pragma GCC unroll 4
        for (int pair = 0; pair < kLineColumns / 2; ++pair, target += 2 * kLanes) {
            __m256i* const line = reinterpret_cast<__m256i*>(target);
            _mm256_store_si256(line, _mm256_sub_epi16(code_pairs<kBits>(low, pair), low_zeros));
            _mm256_store_si256(line + 1, _mm256_sub_epi16(code_pairs<kBits>(high, pair), high_zeros));
        }
    }
}

void unpack_span(const linear_weight& w, const Span& span, int64_t row_block, Panel* panel) {
    const Block* const blocks = blocks_of(w);
    const bool is_q4 = w.kind == PARLOR_LINEAR_Q4;
    const int64_t column_bytes = is_q4 ? kLanes / 2 : kLanes;
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) +
                           span.first_column * column_bytes;
    int16_t* target = panel->codes;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int64_t index = (row_block * w.num_groups + blocks[b].group) * kLanes;
        const int i = b - span.first_block;
        __m256i low = _mm256_setzero_si256(), high = low;
        if (zeros_in_codes(w)) low = zero_pairs(w, index), high = zero_pairs(w, index + 8);
        else store_floats(panel->zeros[i], load_zeros(w, row_block, blocks[b].group));
        store_floats(panel->scales[i], load_scales(w, row_block, blocks[b].group));
        (is_q4 ? unpack_block<4> : unpack_block<8>)(codes, blocks[b].length, span.columns * column_bytes, low, high,
                                                    target);
        codes += blocks[b].length * column_bytes;
        target += blocks[b].length * kLanes;
    }
}

// Add a span's share to the sums of a tile. x, offsets and scales are those of the tile from the span on.
template <int kRows, bool kFloatZeros>
void add_span(const Panel& panel, const Block* blocks, int num_blocks, const int16_t* x, const float* offsets,
              const float* x_scales, float* sums) {
    alignas(32) float parts[kRows][kLanes] = {};
    const int16_t* codes = panel.codes;
    for (int b = 0; b < num_blocks; ++b) {
        const int columns = blocks[b].length;
        __m256i dots[2][kRows];
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) dots[0][r] = dots[1][r] = _mm256_setzero_si256();
        for (int column = 0; column < columns; column += 2, codes += 2 * kLanes) {
            const __m256i low = load_line(codes), high = load_line(codes + kLanes);
#pragma GCC unroll 6
            for (int r = 0; r < kRows; ++r) {
                const __m256i values = broadcast_pair(x + r * columns + column);
                add_products(&dots[0][r], low, values);
                add_products(&dots[1][r], high, values);
            }
        }
        x += kRows * columns;
        const Halves scales = load_floats(panel.scales[b]);
        const Halves zeros = kFloatZeros ? load_floats(panel.zeros[b]) : scales;
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r, ++offsets) {
            Halves values = {_mm256_cvtepi32_ps(dots[0][r]), _mm256_cvtepi32_ps(dots[1][r])};
            if (kFloatZeros) {
                const __m256 offset = _mm256_set1_ps(*offsets);
                values.low = _mm256_fnmadd_ps(zeros.low, offset, values.low);
                values.high = _mm256_fnmadd_ps(zeros.high, offset, values.high);
            }
            const Halves part = multiply_add(values, scales, load_floats(parts[r]));
            if (b + 1 < num_blocks) {
                store_floats(parts[r], part);
            } else {
                float* const sum = sums + r * kLanes;
                store_floats(sum, multiply_add(part, _mm256_set1_ps(x_scales[r]), load_floats(sum)));
            }
        }
    }
}

template <bool kFloatZeros>
void add_span_of(const linear_weight& w, const Panel& panel, const Tile& tile, int64_t index, float* sums) {
    static constexpr decltype(&add_span<1, kFloatZeros>) kAdd[] = {
        add_span<1, kFloatZeros>, add_span<2, kFloatZeros>, add_span<3, kFloatZeros>,
        add_span<4, kFloatZeros>, add_span<5, kFloatZeros>, add_span<6, kFloatZeros>};
    const Span& span = spans_of(w)[index];
    kAdd[tile.rows - 1](panel, blocks_of(w) + span.first_block, span.last_block - span.first_block,
                        static_cast<const int16_t*>(tile.codes[0]) + span.first_column * tile.rows,
                        tile.offsets + span.first_block * tile.rows, tile.scales + index * tile.rows, sums);
}

void multiply_rounded(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t count,
                      const Memory& memory) {
    for (int64_t span = 0; span < w.num_spans; ++span) {
        for (int64_t i = 0; i < count; ++i) unpack_span(w, spans_of(w)[span], first + i, memory.panels + i);
        const auto add = zeros_in_codes(w) ? add_span_of<false> : add_span_of<true>;
        for (int64_t t = 0; t < num_tiles; ++t) {
            for (int64_t i = 0; i < count; ++i) add(w, memory.panels[i], tiles[t], span, memory.sums_of(t, i));
        }
    }
}

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

void quantized(const linear_weight& w, const Tile* tiles, int64_t num_tiles, int64_t first, int64_t last,
               const Output& output, void* own) {
    const Memory memory(own);
    for_panels(first, last, [&](int64_t begin, int64_t count) {
        memory.clear(num_tiles);
        (w.exact ? multiply_exact : multiply_rounded)(w, tiles, num_tiles, begin, count, memory);
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
    return {kTileRows, [](int rows) { return rows; }, kPanelRowBlocks, bytes, quantized, dense};
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
