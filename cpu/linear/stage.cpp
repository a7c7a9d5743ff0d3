// Rows of x made ready for the linear kernels: normalized, permuted, padded block by block, and rounded to 12 bits.
//
// Bound by reading x twice from the first-level cache. Plain loops: the compiler vectorises them for each set.
// code = round(x / scale), scale = max |x| of the span / kLargestCode. A span with NaN gets a NaN scale, so it shows
// in the result.
#include <cmath>
#include <cstring>

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers
#endif
#include <immintrin.h>
#endif

#include "linear.h"
#include "norm.h"
#if defined(PARLOR_I8MM)
#include "dotprod.h"
#endif

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

// Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits of the sum.
constexpr float kRounder = 12582912.0f;
constexpr uint32_t kRounderBits = 0x4B400000;
constexpr uint32_t kTiny = 0x0DA24260;  // 1e-30f: below, kLargestCode / max would overflow; such a span counts as zeros

inline uint32_t float_bits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

constexpr int kMaxTileRows = 16;
constexpr int kRoundedColumns = 16;  // at a time: the shortest block

void normalize(const float* x, const float* norm, float factor, int64_t count, float* values) {
    for (int64_t i = 0; i < count; ++i) values[i] = x[i] * factor * norm[i];
}

// The columns of a block in the order of the codes, padded with zeros.
void gather(const linear_weight& w, const Block& block, const Input& input, int row, float factor, float* values) {
    const float* const x = input.x + row * input.stride;
    if (w.perm) {
        const int32_t* const perm = w.perm + block.source;
        for (int i = 0; i < block.filled; ++i)
            values[i] = input.norm ? x[perm[i]] * factor * input.norm[perm[i]] : x[perm[i]];
    } else if (input.norm) {
        normalize(x + block.source, input.norm + block.source, factor, block.filled, values);
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

inline int32_t round_to_code(float value, float inverse) {
    return static_cast<int32_t>(float_bits(multiply_add(value, inverse, kRounder)) - kRounderBits);
}

// The codes of a block, round(values * inverse), where a tile has them, as planes of bytes or as words; they return their sum.
using Round = int32_t(const linear_weight& w, const float* values, int length, float inverse, void* const* codes, int64_t place);

#if defined(__AVX512F__) || defined(PARLOR_DOTPROD)
int32_t round_block(const linear_weight&, const float* values, int length, float inverse, void* const* codes,
                    int64_t place) {
    int8_t* const high = static_cast<int8_t*>(codes[0]) + place;
    int8_t* const low = static_cast<int8_t*>(codes[1]) + place;
    int32_t lanes[kRoundedColumns] = {};
    for (int i = 0; i < length; i += kRoundedColumns) {
        for (int j = 0; j < kRoundedColumns; ++j) {
            const int32_t code = round_to_code(values[i + j], inverse);
            const int32_t upper = (code + kHighPlane / 2) >> 4;
            high[i + j] = static_cast<int8_t>(upper);
            low[i + j] = static_cast<int8_t>(code - upper * kHighPlane);
            lanes[j] += code;
        }
    }
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    return sum;
}
#elif defined(__AVX2__)
// An order of eight 16-bit words for vpshufb, the same in both halves of a register.
struct WordOrder {
    alignas(32) int8_t bytes[32] = {};

    explicit constexpr WordOrder(const int (&words)[8]) {
        for (int i = 0; i < 32; ++i) bytes[i] = static_cast<int8_t>(2 * words[i % 16 / 2] + i % 2);
    }
};

// Call put(words, i) for the codes of values[i] .. values[i + 15]; returns the sum of all.
template <class Put>
inline int32_t round_words(const float* values, int length, float inverse, Put put) {
    const __m256 factor = _mm256_set1_ps(inverse), rounder = _mm256_set1_ps(kRounder);
    const auto round_8 = [&](const float* from) {
        const __m256 shifted = _mm256_fmadd_ps(_mm256_loadu_ps(from), factor, rounder);
        return _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(kRounderBits));
    };
    __m256i sums = _mm256_setzero_si256();
    for (int i = 0; i < length; i += 16) {
        const __m256i first = round_8(values + i), second = round_8(values + i + 8);
        put(_mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xD8), i);
        sums = _mm256_add_epi32(sums, _mm256_add_epi32(first, second));
    }
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    return sum;
}

int32_t round_block(const linear_weight& w, const float* values, int length, float inverse, void* const* codes,
                    int64_t place) {
    int16_t* const out = static_cast<int16_t*>(codes[0]) + place;
    static constexpr WordOrder kOrders[2] = {WordOrder(kPairOrder[0]), WordOrder(kPairOrder[1])};
    const WordOrder& words_order = kOrders[w.kind == PARLOR_LINEAR_Q4 ? 0 : 1];
    const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(words_order.bytes));
    return round_words(values, length, inverse, [&](__m256i words, int i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_shuffle_epi8(words, order));
    });
}

int32_t round_to_planes(const linear_weight&, const float* values, int length, float inverse, void* const* codes,
                        int64_t place) {
    int8_t* const high = static_cast<int8_t*>(codes[0]) + place;
    int8_t* const low = static_cast<int8_t*>(codes[1]) + place;
    return round_words(values, length, inverse, [&](__m256i words, int i) {
        const __m256i upper = _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(kEvenPlane / 2)), 6);
        const __m256i lower = _mm256_sub_epi16(words, _mm256_slli_epi16(upper, 6));
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(upper, lower), 0xD8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(high + i), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(low + i), _mm256_extracti128_si256(bytes, 1));
    });
}
#else
int32_t round_block(const linear_weight&, const float* values, int length, float inverse, void* const* codes,
                    int64_t place) {
    int16_t* const out = static_cast<int16_t*>(codes[0]) + place;
    int32_t sum = 0;
    for (int i = 0; i < length; ++i) {
        const int32_t code = round_to_code(values[i], inverse);
        out[i] = static_cast<int16_t>(code);
        sum += code;
    }
    return sum;
}
#endif

float offset_of(const linear_weight& w, int32_t sum) {
    if (w.zero_kind != PARLOR_ZERO_ONE) return static_cast<float>(sum);
#if defined(PARLOR_DOTPROD)  // see dotprod.h
    const int32_t zero = w.zero - (w.kind == PARLOR_LINEAR_Q8 || w.kind == PARLOR_LINEAR_T4 || w.kind == PARLOR_LINEAR_W4 ? kByteBias : 0);
#else
    const int32_t zero = w.zero;
#endif
    return bits_to_float(static_cast<uint32_t>(-zero) * static_cast<uint32_t>(sum));
}

// The codes of a block of a row; the tile's begin at `start`. Returns their sum. Where there is smmla, rows of a tile of many are in
// pairs: eight columns of one, then of the other (dotprod.cpp).
template <Round kRound>
int32_t round_row(const linear_weight& w, const float* values, int length, float inverse, void* const* codes, int64_t start,
                  int row, int tile_rows) {
#if defined(PARLOR_I8MM)
    if (tile_rows == kManyRows) {
        int8_t planes[2][kSpanColumns];
        void* const own[2] = {planes[0], planes[1]};
        const int32_t sum = kRound(w, values, length, inverse, own, 0);
        for (int plane = 0; plane < 2; ++plane) {
            int8_t* const pair = static_cast<int8_t*>(codes[plane]) + start + row / 2 * 2 * length + row % 2 * 8;
            for (int column = 0; column < length; column += 8) std::memcpy(pair + 2 * column, planes[plane] + column, 8);
        }
        return sum;
    }
#endif
    (void)tile_rows;
    return kRound(w, values, length, inverse, codes, start + row * length);
}

// One row of a span; returns its scale. Missing rows are zeros.
template <Round kRound>
float stage_span(const linear_weight& w, const Span& span, const Input& input, int row, float factor, int tile_rows,
                 void* const* codes, float* offsets) {
    alignas(64) float values[kSpanColumns];
    const Block* const blocks = blocks_of(w);
    if (row >= input.rows) std::memset(values, 0, sizeof values);
    float* end = values;
    for (int b = span.first_block; row < input.rows && b < span.last_block; end += blocks[b++].length)
        gather(w, blocks[b], input, row, factor, end);
    const float largest = largest_magnitude(values, span.columns);
    const float inverse = largest > 0.0f ? kLargestCode / largest : 0.0f;
    int64_t column = 0;
    for (int b = span.first_block; b < span.last_block; ++b) {
        const int length = blocks[b].length;
        const int64_t start = (span.first_column + column) * tile_rows;
        const int32_t sum = round_row<kRound>(w, values + column, length, inverse, codes, start, row, tile_rows);
        offsets[static_cast<int64_t>(b) * tile_rows + row] = offset_of(w, sum);
        column += length;
    }
    return largest * (1.0f / kLargestCode);
}

void norm_factors(const linear_weight& w, const Input& input, float* factors) {
    for (int64_t row = 0; input.norm && row < input.rows; ++row)
        factors[row] = norm_factor(input, w.k, input.x + row * input.stride);
}

template <Round kRound>
void stage_tile(const linear_weight& w, const Input& input, int tile_rows, void* const* codes, float* scales, float* offsets) {
    const Span* const spans = spans_of(w);
    float factors[kMaxTileRows] = {};
    norm_factors(w, input, factors);
    for (int64_t s = 0; s < w.num_spans; ++s) {
        for (int row = 0; row < tile_rows; ++row)
            scales[s * tile_rows + row] =
                stage_span<kRound>(w, spans[s], input, row, factors[row], tile_rows, codes, offsets);
    }
}

}  // namespace

void stage_rounded(const linear_weight& w, const Input& input, int tile_rows, void* const* codes, float* scales,
                   float* offsets) {
    stage_tile<round_block>(w, input, tile_rows, codes, scales, offsets);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
void stage_planes(const linear_weight& w, const Input& input, int tile_rows, void* const* codes, float* scales,
                  float* offsets) {
    stage_tile<round_to_planes>(w, input, tile_rows, codes, scales, offsets);
}
#endif

void stage_float(const linear_weight& w, const Input& input, int tile_rows, float* values) {
    const Block* blocks = blocks_of(w);
    float factors[kMaxTileRows] = {};
    norm_factors(w, input, factors);
    for (int64_t b = 0; b < w.num_blocks; ++b) {
        for (int row = 0; row < tile_rows; ++row, values += blocks[b].length) {
            if (row < input.rows) gather(w, blocks[b], input, row, factors[row], values);
            else std::memset(values, 0, sizeof(float) * blocks[b].length);
        }
    }
}

void normalize_rows(const linear_weight& w, const Input& input, float* out) {
    for (int64_t row = 0; row < input.rows; ++row) {
        const float* const x = input.x + row * input.stride;
        normalize(x, input.norm, norm_factor(input, w.k, x), w.k, out + row * w.k);
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
