// The linear layer for 1..4 rows with AVX2: the plan of linear_avx512.cpp with 8 outputs a register.
//
// Bound by the multiply-add of bytes (maddubs), which takes unsigned codes times int8 and sums pairs in 16 bits:
// 4 * 15 * 127 stays far below 32,767. Codes of 8 bits are split into nibbles for the same reason.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#endif
#include <immintrin.h>

#include "linear.h"

namespace parlor {
namespace avx2 {
namespace {

constexpr int kMaxRows = 4;
constexpr int kPrefetchBytes = 1024;

struct Halves {
    __m256 low, high;  // outputs 0..7 and 8..15 of a row block
};

inline __m256 load_8_halves(const uint16_t* source) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

inline Halves load_halves(const uint16_t* source) { return {load_8_halves(source), load_8_halves(source + 8)}; }

inline __m256 load_8_bytes(const uint8_t* source) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))));
}

inline Halves load_zeros(const linear_weight& w, int64_t row_block, int64_t group) {
    const int64_t index = (row_block * w.num_groups + group) * kLanes;
    if (w.zero_kind == PARLOR_ZERO_ONE) {
        const __m256 zero = _mm256_set1_ps(static_cast<float>(w.zero));
        return {zero, zero};
    }
    if (w.zero_kind == PARLOR_ZERO_F16) return load_halves(static_cast<const uint16_t*>(w.zeros) + index);
    const uint8_t* bytes = static_cast<const uint8_t*>(w.zeros) + index;
    return {load_8_bytes(bytes), load_8_bytes(bytes + 8)};
}

inline Halves load_scales(const linear_weight& w, int64_t row_block, int64_t group) {
    return load_halves(w.scales + (row_block * w.num_groups + group) * kLanes);
}

void store(const linear_weight& w, const Halves& sums, int64_t row_block, float* out, bool accumulate) {
    const int64_t first = row_block * kLanes;
    const int64_t lanes = w.n - first < kLanes ? w.n - first : kLanes;
    alignas(32) float values[kLanes];
    _mm256_store_ps(values, sums.low);
    _mm256_store_ps(values + 8, sums.high);
    for (int64_t lane = 0; lane < lanes; ++lane) {
        const float sum = w.bias ? values[lane] + w.bias[first + lane] : values[lane];
        out[first + lane] = accumulate ? out[first + lane] + sum : sum;
    }
}

inline __m256i broadcast_codes(const int8_t* x) {
    int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm256_set1_epi32(word);
}

inline __m256i broadcast_bits(const float* x) {
    int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm256_set1_epi32(word);
}

// Half a line, 8 outputs: the low nibbles, and the high ones moved down.
struct Nibbles {
    __m256i low, high;
};

inline Nibbles load_nibbles(const uint8_t* codes) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    return {_mm256_and_si256(line, nibble), _mm256_and_si256(_mm256_srli_epi32(line, 4), nibble)};
}

// Sums of products in 16 bits, widened to 32 and multiplied by `factor`.
inline __m256i widen(__m256i pairs, int factor) {
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(static_cast<int16_t>(factor)));
}

// 4-bit codes: eight columns times a plane of x.
inline __m256i multiply_8(const Nibbles& codes, const int8_t* x, int factor) {
    return widen(_mm256_add_epi16(_mm256_maddubs_epi16(codes.low, broadcast_codes(x)),
                                  _mm256_maddubs_epi16(codes.high, broadcast_codes(x + 4))), factor);
}

// 8-bit codes: four columns times a plane of x.
inline __m256i multiply_4(const Nibbles& codes, const int8_t* x) {
    const __m256i values = broadcast_codes(x);
    return _mm256_add_epi32(widen(_mm256_maddubs_epi16(codes.low, values), 1),
                            widen(_mm256_maddubs_epi16(codes.high, values), 16));
}

struct Dots {
    __m256i all_or_high, low;  // 4-bit codes: both planes; 8-bit codes: one each
};

template <int kBits>
inline void add_line(Dots* dots, const Nibbles& codes, const int8_t* high, const int8_t* low) {
    if (kBits == 4) {
        const __m256i sum = _mm256_add_epi32(multiply_8(codes, high, kHighPlane), multiply_8(codes, low, 1));
        dots->all_or_high = _mm256_add_epi32(dots->all_or_high, sum);
    } else {
        dots->all_or_high = _mm256_add_epi32(dots->all_or_high, multiply_4(codes, high));
        dots->low = _mm256_add_epi32(dots->low, multiply_4(codes, low));
    }
}

template <bool kOneZero>
inline __m256 add_dot(__m256 part, __m256i dot, __m256 scale, __m256 zero, float offset) {
    __m256 value = _mm256_cvtepi32_ps(dot);
    if (!kOneZero) value = _mm256_fnmadd_ps(zero, _mm256_set1_ps(offset), value);
    return _mm256_fmadd_ps(value, scale, part);
}

template <int kBits, bool kOneZero>
inline __m256 add_block(__m256 part, const Dots& dots, __m256 scale, __m256 zero, float offset, float low_offset) {
    if (kBits == 4) return add_dot<kOneZero>(part, dots.all_or_high, scale, zero, offset);
    const __m256 high_scale = _mm256_mul_ps(scale, _mm256_set1_ps(kHighPlane));
    part = add_dot<kOneZero>(part, dots.all_or_high, high_scale, zero, offset);
    return add_dot<kOneZero>(part, dots.low, scale, zero, low_offset);
}

template <int kRows, int kBits, bool kOneZero>
void int8_kernel(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    constexpr int kLineColumns = 32 / kBits;
    const Block* const blocks = blocks_of(w);
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + first * row_block_bytes(w);
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        Halves sums[kRows], parts[kRows];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sums[r].low = sums[r].high = parts[r].low = parts[r].high = _mm256_setzero_ps();
        const float* x_scales = tile.scales;
        const Span* span = spans_of(w);
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            const int columns = blocks[b].length;
            const float* const offsets = tile.offsets[0] + b * kRows;
            const float* const low_offsets = tile.offsets[1] + b * kRows;
            Dots dots[2][kRows];  // of outputs 0..7 and 8..15
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                dots[0][r].all_or_high = kOneZero ? broadcast_bits(offsets + r) : _mm256_setzero_si256();
                dots[0][r].low = kOneZero ? broadcast_bits(low_offsets + r) : _mm256_setzero_si256();
                dots[1][r] = dots[0][r];
            }
            for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T1);
                const Nibbles halves[2] = {load_nibbles(codes), load_nibbles(codes + 32)};
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) {
                    const int64_t place = r * columns + column;
                    add_line<kBits>(&dots[0][r], halves[0], high + place, low + place);
                    add_line<kBits>(&dots[1][r], halves[1], high + place, low + place);
                }
            }
            high += kRows * columns;
            low += kRows * columns;
            const Halves scales = load_scales(w, row_block, blocks[b].group);
            const Halves zeros = kOneZero ? scales : load_zeros(w, row_block, blocks[b].group);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                parts[r].low = add_block<kBits, kOneZero>(parts[r].low, dots[0][r], scales.low, zeros.low, offsets[r],
                                                          low_offsets[r]);
                parts[r].high = add_block<kBits, kOneZero>(parts[r].high, dots[1][r], scales.high, zeros.high,
                                                           offsets[r], low_offsets[r]);
            }
            if (b + 1 < span->last_block) continue;
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                const __m256 scale = _mm256_set1_ps(x_scales[r]);
                sums[r].low = _mm256_fmadd_ps(parts[r].low, scale, sums[r].low);
                sums[r].high = _mm256_fmadd_ps(parts[r].high, scale, sums[r].high);
                parts[r].low = parts[r].high = _mm256_setzero_ps();
            }
            x_scales += kRows;
            ++span;
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
            if (r < output.rows) store(w, sums[r], row_block, output.out + r * output.stride, output.accumulate);
    }
}

template <int kRows, int kBits>
void exact_kernel(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    constexpr int kLineColumns = 32 / kBits;
    const Block* const blocks = blocks_of(w);
    const __m256i code_mask = _mm256_set1_epi32((1 << kBits) - 1);
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + first * row_block_bytes(w);
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const float* x = static_cast<const float*>(tile.codes[0]);
        Halves sums[kRows];
        for (int r = 0; r < kRows; ++r) sums[r].low = sums[r].high = _mm256_setzero_ps();
        for (int64_t b = 0; b < w.num_blocks; ++b) {
            const int columns = blocks[b].length;
            const Halves zeros = load_zeros(w, row_block, blocks[b].group);
            Halves partial[kRows];
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) partial[r].low = partial[r].high = _mm256_setzero_ps();
            for (int column = 0; column < columns; column += kLineColumns, codes += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T1);
                const __m256i low_line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
                const __m256i high_line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32));
#pragma GCC unroll 8
                for (int k = 0; k < kLineColumns; ++k) {
                    const int shift = kBits == 4 ? k % 4 * 8 + k / 4 * 4 : k * 8;
                    const __m256i low_code = _mm256_and_si256(_mm256_srli_epi32(low_line, shift), code_mask);
                    const __m256i high_code = _mm256_and_si256(_mm256_srli_epi32(high_line, shift), code_mask);
                    const __m256 low = _mm256_sub_ps(_mm256_cvtepi32_ps(low_code), zeros.low);
                    const __m256 high = _mm256_sub_ps(_mm256_cvtepi32_ps(high_code), zeros.high);
#pragma GCC unroll 4
                    for (int r = 0; r < kRows; ++r) {
                        const __m256 value = _mm256_set1_ps(x[r * columns + column + k]);
                        partial[r].low = _mm256_fmadd_ps(low, value, partial[r].low);
                        partial[r].high = _mm256_fmadd_ps(high, value, partial[r].high);
                    }
                }
            }
            x += kRows * columns;
            const Halves scales = load_scales(w, row_block, blocks[b].group);
            for (int r = 0; r < kRows; ++r) {
                sums[r].low = _mm256_fmadd_ps(partial[r].low, scales.low, sums[r].low);
                sums[r].high = _mm256_fmadd_ps(partial[r].high, scales.high, sums[r].high);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r)
            if (r < output.rows) store(w, sums[r], row_block, output.out + r * output.stride, output.accumulate);
    }
}

// Rows of a dense x; rows of the kernel that x lacks repeat the last one and are not stored.
template <int kRows>
struct Rows {
    const float* row[kRows];

    Rows(const float* x, int64_t stride, int rows) {
        for (int r = 0; r < kRows; ++r) row[r] = x + (r < rows ? r : rows - 1) * stride;
    }
};

inline __m256 upper_16_bits(__m256i line) {
    return _mm256_castsi256_ps(_mm256_and_si256(line, _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000))));
}

// Column k of a row block of dense values.
template <int kKind>
inline Halves load_column(const char* values, int64_t k) {
    if (kKind == PARLOR_LINEAR_F32) {
        const float* source = reinterpret_cast<const float*>(values) + k * kLanes;
        return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)};
    }
    if (kKind == PARLOR_LINEAR_F16) return load_halves(reinterpret_cast<const uint16_t*>(values) + k * kLanes);
    const char* const line = values + k / 2 * 64;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32));
    if (k % 2) return {upper_16_bits(low), upper_16_bits(high)};
    return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
}

template <int kRows, int kKind>
void dense_kernel(const linear_weight& w, const Rows<kRows>& x, int64_t first, int64_t last,
                  const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const char* const values = static_cast<const char*>(w.codes) + row_block * row_block_bytes(w);
        Halves sums[kRows];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sums[r].low = sums[r].high = _mm256_setzero_ps();
        for (int64_t k = 0; k < w.k; ++k) {
            _mm_prefetch(values + k * kLanes * (kKind == PARLOR_LINEAR_F32 ? 4 : 2) + kPrefetchBytes, _MM_HINT_T1);
            const Halves column = load_column<kKind>(values, k);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                const __m256 value = _mm256_set1_ps(x.row[r][k]);
                sums[r].low = _mm256_fmadd_ps(column.low, value, sums[r].low);
                sums[r].high = _mm256_fmadd_ps(column.high, value, sums[r].high);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r)
            if (r < output.rows) store(w, sums[r], row_block, output.out + r * output.stride, output.accumulate);
    }
}

template <int kRows>
void int8_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    const bool one_zero = w.zero_kind == PARLOR_ZERO_ONE;
    if (w.kind == PARLOR_LINEAR_Q4)
        (one_zero ? int8_kernel<kRows, 4, true> : int8_kernel<kRows, 4, false>)(w, tile, first, last, output);
    else
        (one_zero ? int8_kernel<kRows, 8, true> : int8_kernel<kRows, 8, false>)(w, tile, first, last, output);
}

template <int kRows>
void exact_kind(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    (w.kind == PARLOR_LINEAR_Q4 ? exact_kernel<kRows, 4> : exact_kernel<kRows, 8>)(w, tile, first, last, output);
}

template <int kRows>
void dense_kind(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    const Rows<kRows> rows(x, x_stride, output.rows);
    if (w.kind == PARLOR_LINEAR_F16) dense_kernel<kRows, PARLOR_LINEAR_F16>(w, rows, first, last, output);
    else if (w.kind == PARLOR_LINEAR_BF16) dense_kernel<kRows, PARLOR_LINEAR_BF16>(w, rows, first, last, output);
    else dense_kernel<kRows, PARLOR_LINEAR_F32>(w, rows, first, last, output);
}

// Kernels exist for powers of two: others would take seconds to compile and save little, as reading the codes takes
// longest.
inline int size_index(int rows) { return rows <= 1 ? 0 : rows <= 2 ? 1 : 2; }

int tile_rows(int rows) { return 1 << size_index(rows); }

void int8_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&int8_kind<1>) kInt8[] = {int8_kind<1>, int8_kind<2>, int8_kind<4>};
    kInt8[size_index(tile.rows)](w, tile, first, last, output);
}

void exact_rows(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    static constexpr decltype(&exact_kind<1>) kExact[] = {exact_kind<1>, exact_kind<2>, exact_kind<4>};
    kExact[size_index(tile.rows)](w, tile, first, last, output);
}

void dense_rows(const linear_weight& w, const float* x, int64_t x_stride, int64_t first, int64_t last,
                const Output& output) {
    static constexpr decltype(&dense_kind<1>) kDense[] = {dense_kind<1>, dense_kind<2>, dense_kind<4>};
    kDense[size_index(output.rows)](w, x, x_stride, first, last, output);
}

}  // namespace

LinearKernels linear_kernels() { return {kMaxRows, tile_rows, int8_rows, exact_rows, dense_rows}; }

}  // namespace avx2
}  // namespace parlor
