// The linear layer for 1..4 rows with AVX2.
//
// Bound by reading the codes. So four row blocks, far apart in memory, are read side by side, a block of columns of each
// in turn, with prefetches: on a Zen 3 that reads 29 GB/s where one stream a thread reads 24. A line of 128 codes takes 12
// operations to unpack and 16 a row: multiplied as pairs of int16 (vpmaddwd) the 12 bits of an activation need no two
// planes, as bytes would.
#include "linear_avx2.h"

namespace parlor {
namespace avx2 {
namespace {

constexpr int kMaxRows = 4;
constexpr int kStreams = 4;
constexpr int kPrefetchBytes = 1024;  // ahead in each stream
constexpr int64_t kDenseColumns = 64; // of a stream in turn

inline void prefetch(const void* source) {
    _mm_prefetch(static_cast<const char*>(source) + kPrefetchBytes, _MM_HINT_T0);
}

// Row blocks that are worked off side by side.
struct Streams {
    int64_t row_blocks[kStreams];
    int count;
};

// Call work(streams) until each of [first, last) was in one.
template <class Work>
void for_streams(int64_t first, int64_t last, Work work) {
    const int64_t length = (last - first) / kStreams;
    for (int64_t i = 0; i < length; ++i)
        work(Streams{{first + i, first + length + i, first + 2 * length + i, first + 3 * length + i}, kStreams});
    Streams rest{{}, 0};
    for (int64_t i = first + length * kStreams; i < last; ++i) rest.row_blocks[rest.count++] = i;
    if (rest.count > 0) work(rest);
}

template <int kRows>
using Sums = float[kStreams][kRows][kLanes];

template <int kRows>
void store_all(const linear_weight& w, const Streams& streams, const Sums<kRows>& sums, const Output& output) {
    for (int s = 0; s < streams.count; ++s) {
        for (int r = 0; r < output.rows; ++r)
            store(w, load_floats(sums[s][r]), streams.row_blocks[s], output.out + r * output.stride, output.accumulate);
    }
}

// dots[half][row] += codes of a block of columns times x [rows][columns]
template <int kRows, int kBits>
inline void add_block(const uint8_t* codes, int columns, const int16_t* x, __m256i (*dots)[kRows]) {
    constexpr int kLineColumns = 32 / kBits;
    for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
        prefetch(codes);
        const __m256i low = load_line(codes), high = load_line(codes + 32);
#pragma GCC unroll 4
        for (int pair = 0; pair < kLineColumns / 2; ++pair) {
            const __m256i low_pairs = code_pairs<kBits>(low, pair), high_pairs = code_pairs<kBits>(high, pair);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                const __m256i values = broadcast_pair(x + r * columns + column + 2 * pair);
                add_products(&dots[0][r], low_pairs, values);
                add_products(&dots[1][r], high_pairs, values);
            }
        }
    }
}

template <bool kOneZero>
inline __m256 add_dot(__m256 part, __m256i dot, __m256 scale, __m256 zero, float offset) {
    __m256 value = _mm256_cvtepi32_ps(dot);
    if (!kOneZero) value = _mm256_fnmadd_ps(zero, _mm256_set1_ps(offset), value);
    return _mm256_fmadd_ps(value, scale, part);
}

template <int kRows, int kBits, bool kOneZero>
void rounded_streams(const linear_weight& w, const Tile& tile, const Streams& streams, const Output& output) {
    const Block* const blocks = blocks_of(w);
    alignas(32) Sums<kRows> sums = {}, parts = {};
    const int16_t* x = static_cast<const int16_t*>(tile.codes[0]);
    const float *offsets = tile.offsets, *x_scales = tile.scales;
    const Span* span = spans_of(w);
    int64_t place = 0;  // of the block within a row block
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        const int columns = blocks[b].length;
        const bool ends_span = b + 1 == span->last_block;
        for (int s = 0; s < streams.count; ++s) {
            const int64_t row_block = streams.row_blocks[s];
            __m256i dots[2][kRows];
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                int32_t start;
                __builtin_memcpy(&start, offsets + r, sizeof start);
                dots[0][r] = dots[1][r] = kOneZero ? _mm256_set1_epi32(start) : _mm256_setzero_si256();
            }
            add_block<kRows, kBits>(static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w) + place,
                                    columns, x, dots);
            const Halves scales = load_scales(w, row_block, blocks[b].group);
            const Halves zeros = kOneZero ? scales : load_zeros(w, row_block, blocks[b].group);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                Halves part = load_floats(parts[s][r]);
                part.low = add_dot<kOneZero>(part.low, dots[0][r], scales.low, zeros.low, offsets[r]);
                part.high = add_dot<kOneZero>(part.high, dots[1][r], scales.high, zeros.high, offsets[r]);
                if (ends_span) {
                    const __m256 factor = _mm256_set1_ps(x_scales[r]);
                    store_floats(sums[s][r], multiply_add(part, factor, load_floats(sums[s][r])));
                    part = zero_floats();
                }
                store_floats(parts[s][r], part);
            }
        }
        place += columns * 2 * kBits;
        x += kRows * columns;
        offsets += kRows;
        if (ends_span) x_scales += kRows, ++span;
    }
    store_all<kRows>(w, streams, sums, output);
}

// Float32 throughout. Codes are widened one column of the line at a time.
template <int kRows, int kBits>
void exact_streams(const linear_weight& w, const Tile& tile, const Streams& streams, const Output& output) {
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
                    for (int r = 0; r < kRows; ++r)
                        partial[r] = multiply_add(weights, _mm256_set1_ps(x[r * columns + column + k]), partial[r]);
                }
            }
            const Halves scales = load_scales(w, row_block, blocks[b].group);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r)
                store_floats(sums[s][r], multiply_add(partial[r], scales, load_floats(sums[s][r])));
        }
        place += columns * 2 * kBits;
        x += kRows * columns;
    }
    store_all<kRows>(w, streams, sums, output);
}

// Rows of a dense x; rows of the kernel that x lacks repeat the last one and are not stored.
template <int kRows>
struct Rows {
    const float* row[kRows];

    Rows(const float* x, int64_t stride, int rows) {
        for (int r = 0; r < kRows; ++r) row[r] = x + (r < rows ? r : rows - 1) * stride;
    }
};

template <int kRows, int kKind>
void dense_streams(const linear_weight& w, const Rows<kRows>& x, const Streams& streams, const Output& output) {
    constexpr int64_t kColumnBytes = kLanes * (kKind == PARLOR_LINEAR_F32 ? 4 : 2);
    alignas(32) Sums<kRows> sums = {};
    for (int64_t first = 0; first < w.k; first += kDenseColumns) {
        const int64_t last = first + kDenseColumns < w.k ? first + kDenseColumns : w.k;
        for (int s = 0; s < streams.count; ++s) {
            const char* const values = static_cast<const char*>(w.codes) + streams.row_blocks[s] * row_block_bytes(w);
            Halves own[kRows];
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) own[r] = load_floats(sums[s][r]);
            for (int64_t k = first; k < last; ++k) {
                prefetch(values + k * kColumnBytes);
                const Halves column = load_column<kKind>(values, k);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) own[r] = multiply_add(column, _mm256_set1_ps(x.row[r][k]), own[r]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) store_floats(sums[s][r], own[r]);
        }
    }
    store_all<kRows>(w, streams, sums, output);
}

template <int kRows>
void rounded_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const bool one_zero = w.zero_kind == PARLOR_ZERO_ONE;
    const auto kernel = w.kind == PARLOR_LINEAR_Q4
        ? (one_zero ? rounded_streams<kRows, 4, true> : rounded_streams<kRows, 4, false>)
        : (one_zero ? rounded_streams<kRows, 8, true> : rounded_streams<kRows, 8, false>);
    for_streams(first, last, [&](const Streams& streams) { kernel(w, tile, streams, output); });
}

template <int kRows>
void exact_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const auto kernel = w.kind == PARLOR_LINEAR_Q4 ? exact_streams<kRows, 4> : exact_streams<kRows, 8>;
    for_streams(first, last, [&](const Streams& streams) { kernel(w, tile, streams, output); });
}

template <int kRows>
void dense_kind(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    const Rows<kRows> rows(x, x_stride, output.rows);
    const auto kernel = w.kind == PARLOR_LINEAR_F16 ? dense_streams<kRows, PARLOR_LINEAR_F16>
        : w.kind == PARLOR_LINEAR_BF16 ? dense_streams<kRows, PARLOR_LINEAR_BF16>
                                       : dense_streams<kRows, PARLOR_LINEAR_F32>;
    for_streams(first, last, [&](const Streams& streams) { kernel(w, rows, streams, output); });
}

int tile_rows(int rows) { return rows; }

void rounded_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&rounded_kind<1>) kRounded[] = {rounded_kind<1>, rounded_kind<2>, rounded_kind<3>,
                                                              rounded_kind<4>};
    kRounded[tile.rows - 1](w, tile, first, last, output);
}

void exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&exact_kind<1>) kExact[] = {exact_kind<1>, exact_kind<2>, exact_kind<3>, exact_kind<4>};
    kExact[tile.rows - 1](w, tile, first, last, output);
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    static constexpr decltype(&dense_kind<1>) kDense[] = {dense_kind<1>, dense_kind<2>, dense_kind<3>, dense_kind<4>};
    kDense[output.rows - 1](w, x, x_stride, first, last, output);
}

}  // namespace

LinearKernels linear_kernels() { return {kMaxRows, tile_rows, rounded_rows, exact_rows, dense_rows}; }

}  // namespace avx2
}  // namespace parlor
