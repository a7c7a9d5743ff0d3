// The linear layer for 1..8 rows with AVX2.
//
// One or two rows are bound by reading the codes, more by the multiplier. Two row blocks, far apart in memory, are read
// side by side, with prefetches: on a Zen 3 that is 7% faster than four and 3% than one. A line of 128 codes takes 12
// operations to unpack and 16 a row: multiplied as pairs of int16 (vpmaddwd) the 12 bits of an activation need no two
// planes, as bytes would. For one or two rows both row blocks share the activations in a register. Five to eight rows go
// over each block of columns in two runs: unpacking twice costs less than a panel (panels.cpp) that few rows
// read. (One row of 4-bit codes has a kernel of its own, row_avx2.cpp, but with AVX-VNNI and in float32.)
#include <type_traits>

#include "avx2.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int kMaxRows = 8;
constexpr int kRowsAtOnce = 4;         // have their sums of 16 outputs in registers
constexpr int kStreams = 2;
constexpr int kRowsOfTwoStreams = 2;   // up to so many rows have those of both streams there
constexpr int kPrefetchBytes = 2048;   // ahead in each stream
constexpr int64_t kDenseColumns = 64;  // of a stream in turn

inline void prefetch(const void* source) {
    _mm_prefetch(static_cast<const char*>(source) + kPrefetchBytes, _MM_HINT_T0);
}

// Row blocks that are worked off side by side; the last ones may be there twice.
struct Streams {
    int64_t row_blocks[kStreams];
    int count;
};

// Call work(streams) until each of [first, last) was in one.
template <class Work>
void for_streams(int64_t first, int64_t last, Work work) {
    const int64_t length = (last - first) / kStreams;
    for (int64_t i = 0; i < length; ++i) work(Streams{{first + i, first + length + i}, kStreams});
    if (first + length * kStreams < last) work(Streams{{last - 1, last - 1}, 1});
}

template <int kRows>
using Sums = float[kStreams][kRows][kLanes];

// Rows from first_row on.
template <int kRows>
void store_all(const linear_weight& w, const Streams& streams, const Sums<kRows>& sums, int first_row,
               const Output& output) {
    for (int s = 0; s < streams.count; ++s) {
        for (int r = 0; r < kRows && first_row + r < output.rows; ++r)
            store(w, load_floats(sums[s][r]), streams.row_blocks[s], output.out + (first_row + r) * output.stride,
                  output.accumulate);
    }
}

// visit(count, first row), count an integral constant, for runs of at most kRowsAtOnce rows.
template <class Visit>
void for_rows(int rows, Visit visit) {
    for (int first = 0; first < rows; first += kRowsAtOnce) {
        switch (rows - first) {
            case 1: visit(std::integral_constant<int, 1>(), first); break;
            case 2: visit(std::integral_constant<int, 2>(), first); break;
            case 3: visit(std::integral_constant<int, 3>(), first); break;
            default: visit(std::integral_constant<int, kRowsAtOnce>(), first);
        }
    }
}

// dots[stream][half][row] += codes of a block of columns times x [rows][columns]
template <int kTogether, int kRows, int kBits>
inline void add_block(const uint8_t* const* codes, int columns, const int16_t* x, __m256i (*dots)[2][kRows]) {
    constexpr int kLineColumns = 32 / kBits;
    for (int column = 0, place = 0; column < columns; column += kLineColumns, place += 64) {
        __m256i lines[kTogether][2];
#pragma GCC unroll 2
        for (int t = 0; t < kTogether; ++t) {
            prefetch(codes[t] + place);
            lines[t][0] = load_line(codes[t] + place);
            lines[t][1] = load_line(codes[t] + place + 32);
        }
#if defined(__AVXVNNI__)
#pragma GCC unroll 2
        for (int t = 0; t < kTogether; ++t) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                __m256i pairs[kLineColumns / 2];
#pragma GCC unroll 4
                for (int i = 0; i < kLineColumns / 2; ++i) pairs[i] = code_pairs<kBits>(lines[t][half], i);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) add_line(&dots[t][half][r], pairs, x + r * columns + column);
            }
        }
#else
#pragma GCC unroll 4
        for (int pair = 0; pair < kLineColumns / 2; ++pair) {
            __m256i pairs[kTogether][2];
#pragma GCC unroll 2
            for (int t = 0; t < kTogether; ++t) {
                pairs[t][0] = code_pairs<kBits>(lines[t][0], pair);
                pairs[t][1] = code_pairs<kBits>(lines[t][1], pair);
            }
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                const __m256i values = broadcast_pair(x + r * columns + column + 2 * pair);
#pragma GCC unroll 2
                for (int t = 0; t < kTogether; ++t) {
                    add_products(&dots[t][0][r], pairs[t][0], values);
                    add_products(&dots[t][1][r], pairs[t][1], values);
                }
            }
        }
#endif
    }
}

template <bool kOneZero>
inline __m256 add_dot(__m256 part, __m256i dot, __m256 scale, __m256 zero, float offset) {
    __m256 value = _mm256_cvtepi32_ps(dot);
    if (!kOneZero) value = _mm256_fnmadd_ps(zero, _mm256_set1_ps(offset), value);
    return _mm256_fmadd_ps(value, scale, part);
}

// A block of columns as add_dots() takes it: kRows of the tile's rows, row blocks row_blocks[..]. parts and sums are those
// of the first row block; the others' follow `stride` floats apart.
struct BlockOfRows {
    const linear_weight& w;
    const Block& block;
    int64_t place;  // within a row block
    const int64_t* row_blocks;
    const int16_t* x;
    const float *offsets, *span_scales;  // span_scales: if the block ends a span
    float *parts, *sums;
    int64_t stride;
};

template <int kTogether, int kRows, int kBits, bool kOneZero>
__attribute__((always_inline)) inline void add_dots(const BlockOfRows& b) {
    const uint8_t* codes[kTogether];
    __m256i dots[kTogether][2][kRows];
#pragma GCC unroll 2
    for (int t = 0; t < kTogether; ++t) {
        codes[t] = static_cast<const uint8_t*>(b.w.codes) + b.row_blocks[t] * row_block_bytes(b.w) + b.place;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
            int32_t start;
            __builtin_memcpy(&start, b.offsets + r, sizeof start);
            dots[t][0][r] = dots[t][1][r] = kOneZero ? _mm256_set1_epi32(start) : _mm256_setzero_si256();
        }
    }
    add_block<kTogether, kRows, kBits>(codes, b.block.length, b.x, dots);
#pragma GCC unroll 2
    for (int t = 0; t < kTogether; ++t) {
        const Halves scales = load_scales(b.w, b.row_blocks[t], b.block.group);
        const Halves zeros = kOneZero ? scales : load_zeros(b.w, b.row_blocks[t], b.block.group);
        float *parts = b.parts + t * b.stride, *sums = b.sums + t * b.stride;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r, parts += kLanes, sums += kLanes) {
            Halves part = load_floats(parts);
            part.low = add_dot<kOneZero>(part.low, dots[t][0][r], scales.low, zeros.low, b.offsets[r]);
            part.high = add_dot<kOneZero>(part.high, dots[t][1][r], scales.high, zeros.high, b.offsets[r]);
            if (b.span_scales) {
                store_floats(sums, multiply_add(part, _mm256_set1_ps(b.span_scales[r]), load_floats(sums)));
                part = zero_floats();
            }
            store_floats(parts, part);
        }
    }
}

template <int kRows, int kBits, bool kOneZero>
void rounded_streams(const linear_weight& w, const Tile& tile, const Streams& streams, const Output& output) {
    constexpr int kTogether = kRows <= kRowsOfTwoStreams ? kStreams : 1;
    constexpr int kFirst = kRows <= kRowsAtOnce ? kRows : (kRows + 1) / 2, kSecond = kRows - kFirst;
    const Block* const blocks = blocks_of(w);
    alignas(32) Sums<kRows> sums = {}, parts = {};
    const int16_t* x = static_cast<const int16_t*>(tile.codes[0]);
    const float *offsets = tile.offsets, *x_scales = tile.scales;
    const Span* span = spans_of(w);
    int64_t place = 0;
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const int columns = blocks[b].length;
        const bool ends_span = b + 1 == span->last_block;
        for (int s = 0; s < streams.count; s += kTogether) {
            add_dots<kTogether, kFirst, kBits, kOneZero>({w, blocks[b], place, streams.row_blocks + s, x, offsets,
                                                          ends_span ? x_scales : nullptr, parts[s][0], sums[s][0],
                                                          kRows * kLanes});
            if constexpr (kSecond > 0)
                add_dots<kTogether, kSecond, kBits, kOneZero>({w, blocks[b], place, streams.row_blocks + s, x + kFirst * columns,
                                                               offsets + kFirst, ends_span ? x_scales + kFirst : nullptr,
                                                               parts[s][kFirst], sums[s][kFirst], kRows * kLanes});
        }
        place += columns * 2 * kBits;
        x += kRows * columns;
        offsets += kRows;
        if (ends_span) x_scales += kRows, ++span;
    }
    store_all<kRows>(w, streams, sums, 0, output);
}

// Float32 throughout. Codes are widened one column of the line at a time.
template <int kRows, int kBits>
void exact_streams(const linear_weight& w, const Tile& tile, int first_row, const Streams& streams, const Output& output) {
    constexpr int kLineColumns = 32 / kBits;
    const Block* const blocks = blocks_of(w);
    const __m256i code_mask = _mm256_set1_epi32((1 << kBits) - 1);
    alignas(32) Sums<kRows> sums = {};
    const float* x = static_cast<const float*>(tile.codes[0]);
    int64_t place = 0;
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const int columns = blocks[b].length;
        for (int s = 0; s < streams.count; ++s) {
            const int64_t row_block = streams.row_blocks[s];
            const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) + place;
            const Halves zeros = load_zeros(w, row_block, blocks[b].group);
            Halves partial[kRows];
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) partial[r] = zero_floats();
            for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
                prefetch(codes);
                const __m256i low_line = load_line(codes), high_line = load_line(codes + 32);
#pragma GCC unroll 8
                for (int k = 0; k < kLineColumns; ++k) {
                    const int shift = kBits == 4 ? k % 4 * 8 + k / 4 * 4 : k * 8;
                    const __m256i low_code = _mm256_and_si256(_mm256_srli_epi32(low_line, shift), code_mask);
                    const __m256i high_code = _mm256_and_si256(_mm256_srli_epi32(high_line, shift), code_mask);
                    const Halves weights = {_mm256_sub_ps(_mm256_cvtepi32_ps(low_code), zeros.low),
                                            _mm256_sub_ps(_mm256_cvtepi32_ps(high_code), zeros.high)};
#pragma GCC unroll 4
                    for (int r = 0; r < kRows; ++r) {
                        const __m256 value = _mm256_set1_ps(x[(first_row + r) * columns + column + k]);
                        partial[r] = multiply_add(weights, value, partial[r]);
                    }
                }
            }
            const Halves scales = load_scales(w, row_block, blocks[b].group);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r)
                store_floats(sums[s][r], multiply_add(partial[r], scales, load_floats(sums[s][r])));
        }
        place += columns * 2 * kBits;
        x += tile.rows * columns;
    }
    store_all<kRows>(w, streams, sums, first_row, output);
}

template <int kRows, int kKind>
void dense_streams(const linear_weight& w, const float* x, int64_t x_stride, int first_row, const Streams& streams,
                   const Output& output) {
    constexpr int64_t kColumnBytes = kLanes * (kKind == PARLOR_LINEAR_F32 ? 4 : kKind == PARLOR_LINEAR_F8 ? 1 : 2);
    alignas(32) Sums<kRows> sums = {};
    for (int64_t first = 0; first < w.k; first += kDenseColumns) {
        const int64_t last = first + kDenseColumns < w.k ? first + kDenseColumns : w.k;
        for (int s = 0; s < streams.count; ++s) {
            const char* const values = static_cast<const char*>(w.codes) + streams.row_blocks[s] * row_block_bytes(w);
            Halves own[kRows];
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) own[r] = load_floats(sums[s][r]);
            Halves factors = own[0];
            for (int64_t k = first; k < last; ++k) {
                prefetch(values + k * kColumnBytes);
                if (kKind == PARLOR_LINEAR_F8 && (k == first || k % w.group_size == 0))
                    factors = column_factors(w, streams.row_blocks[s], k);
                const Halves column = load_column<kKind>(values, k, factors);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r)
                    own[r] = multiply_add(column, _mm256_set1_ps(x[(first_row + r) * x_stride + k]), own[r]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) store_floats(sums[s][r], own[r]);
        }
    }
    store_all<kRows>(w, streams, sums, first_row, output);
}

template <int kRows>
void rounded_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const bool one_zero = w.zero_kind == PARLOR_ZERO_ONE;
    const auto kernel = w.kind == PARLOR_LINEAR_Q4
        ? (one_zero ? rounded_streams<kRows, 4, true> : rounded_streams<kRows, 4, false>)
        : (one_zero ? rounded_streams<kRows, 8, true> : rounded_streams<kRows, 8, false>);
    for_streams(first, last, [&](const Streams& streams) { kernel(w, tile, streams, output); });
}

int tile_rows(int rows) { return rows; }

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&rounded_kind<1>) kRounded[] = {rounded_kind<1>, rounded_kind<2>, rounded_kind<3>,
                                                              rounded_kind<4>, rounded_kind<5>, rounded_kind<6>,
                                                              rounded_kind<7>, rounded_kind<8>};
    kRounded[tile.rows - 1](w, tile, first, last, output);
}

void exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for_streams(first, last, [&](const Streams& streams) {
        for_rows(tile.rows, [&](auto rows, int r) {
            constexpr int kRows = decltype(rows)::value;
            (w.kind == PARLOR_LINEAR_Q4 ? exact_streams<kRows, 4> : exact_streams<kRows, 8>)(w, tile, r, streams, output);
        });
    });
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    for_streams(first, last, [&](const Streams& streams) {
        for_rows(output.rows, [&](auto rows, int r) {
            constexpr int kRows = decltype(rows)::value;
            const auto kernel = w.kind == PARLOR_LINEAR_F16 ? dense_streams<kRows, PARLOR_LINEAR_F16>
                : w.kind == PARLOR_LINEAR_BF16 ? dense_streams<kRows, PARLOR_LINEAR_BF16>
                : w.kind == PARLOR_LINEAR_F8 ? dense_streams<kRows, PARLOR_LINEAR_F8>
                                               : dense_streams<kRows, PARLOR_LINEAR_F32>;
            kernel(w, x, x_stride, r, streams, output);
        });
    });
}

}  // namespace

LinearKernels linear_kernels() { return {kMaxRows, tile_rows, rounded_rows, exact_rows, dense_rows}; }

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
