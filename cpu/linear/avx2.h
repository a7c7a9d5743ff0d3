// What the AVX2 kernels for few and for many rows share: 16 outputs of a row block in two registers.
//
// Compiled once more with AVX-VNNI, whose vpdpwssd is vpmaddwd and vpaddd in one: the same integers, so the same bits. It
// takes 5 cycles until its sum can be added to again, where vpaddd takes one.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#endif
#include <immintrin.h>

#include "linear.h"

namespace parlor {
namespace PARLOR_ISA_NS {

struct Halves {
    __m256 low, high;  // outputs 0..7 and 8..15
};

inline __m256i load_line(const void* source) { return _mm256_loadu_si256(static_cast<const __m256i*>(source)); }

inline Halves load_floats(const float* source) { return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)}; }

inline void store_floats(float* target, const Halves& values) {
    _mm256_storeu_ps(target, values.low);
    _mm256_storeu_ps(target + 8, values.high);
}

inline Halves zero_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

inline Halves multiply_add(const Halves& a, __m256 b, const Halves& c) {
    return {_mm256_fmadd_ps(a.low, b, c.low), _mm256_fmadd_ps(a.high, b, c.high)};
}

inline Halves multiply_add(const Halves& a, const Halves& b, const Halves& c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

inline __m256 load_8_halves(const uint16_t* source) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

inline Halves load_halves(const uint16_t* source) { return {load_8_halves(source), load_8_halves(source + 8)}; }

inline __m256 load_8_bytes(const uint8_t* source) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))));
}

inline Halves load_scales(const linear_weight& w, int64_t row_block, int64_t group) {
    return load_halves(w.scales + (row_block * w.num_groups + group) * kLanes);
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

// Bias added, the row block's outputs that there are stored or added.
inline void store(const linear_weight& w, Halves sums, int64_t row_block, float* out, bool accumulate) {
    const int64_t first = row_block * kLanes;
    const int64_t lanes = w.n - first < kLanes ? w.n - first : kLanes;
    if (lanes == kLanes) {
        const auto add = [](const Halves& a, const Halves& b) {
            return Halves{_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
        };
        if (w.bias) sums = add(sums, load_floats(w.bias + first));
        if (accumulate) sums = add(load_floats(out + first), sums);
        return store_floats(out + first, sums);
    }
    alignas(32) float values[kLanes];
    store_floats(values, sums);
    for (int64_t lane = 0; lane < lanes; ++lane) {
        const float sum = w.bias ? values[lane] + w.bias[first + lane] : values[lane];
        out[first + lane] = accumulate ? out[first + lane] + sum : sum;
    }
}

// Half a line, the codes of 8 outputs, as pairs of int16 in the order of kPairOrder.
template <int kBits>
inline __m256i code_pairs(__m256i line, int index) {
    if (kBits == 8)
        return index == 0 ? _mm256_and_si256(line, _mm256_set1_epi32(0x00FF00FF)) : _mm256_srli_epi16(line, 8);
    if (index == 3) return _mm256_srli_epi16(line, 12);
    return _mm256_and_si256(index == 0 ? line : _mm256_srli_epi32(line, 4 * index), _mm256_set1_epi32(0x000F000F));
}

inline __m256i broadcast_pair(const int16_t* x) {
    int32_t pair;
    __builtin_memcpy(&pair, x, sizeof pair);
    return _mm256_set1_epi32(pair);
}

#if defined(__AVXVNNI__) && !defined(PARLOR_EMULATED_DPWSSD)
// The instruction as it stands: of the intrinsic clang makes vpmaddwd and vpaddd again, where it sees a sum waited for.
inline __m256i dpwssd(__m256i sum, __m256i a, __m256i b) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}
#endif

// sum = a * b, and sum += a * b: pairs of int16 into int32. The sum stays where it is: left to itself gcc 12 first loads the x of all rows,
// for which there are too few registers, and the spills take half of the speed.
inline void set_products(__m256i* sum, __m256i a, __m256i b) {
    *sum = _mm256_madd_epi16(a, b);
    asm volatile("" : "+x"(*sum));
}
inline void add_products(__m256i* sum, __m256i a, __m256i b) {
#if defined(__AVXVNNI__)
    *sum = dpwssd(*sum, a, b);
    asm volatile("" : "+x"(*sum));
#else
    const __m256i products = _mm256_madd_epi16(a, b);
    asm volatile("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
#endif
}

#if defined(__AVXVNNI__)
// sum += pairs of codes times as many pairs of x. Few sums in turn would wait for vpdpwssd: so a line's products come to
// a sum of their own, and that is added by vpaddd.
template <int kPairs>
inline void add_line(__m256i* sum, const __m256i (&pairs)[kPairs], const int16_t* x) {
    __m256i products = _mm256_madd_epi16(pairs[0], broadcast_pair(x));
#pragma GCC unroll 4
    for (int i = 1; i < kPairs; ++i) products = dpwssd(products, pairs[i], broadcast_pair(x + 2 * i));
    asm volatile("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
}
#endif

// The same in float32.
inline void add_products(__m256* sum, __m256 a, __m256 b) {
    asm volatile("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
}

// What the numbers of a row block's columns are multiplied by, of F8.
inline Halves column_factors(const linear_weight& w, int64_t row_block, int64_t k) {
    const __m256 scale = _mm256_set1_ps(block_scale(w, row_block, k / w.group_size));
    const Halves factors = load_floats(w.factors + row_block * kLanes);
    return {_mm256_mul_ps(factors.low, scale), _mm256_mul_ps(factors.high, scale)};
}

// One column of a row block of dense values.
template <int kKind>
inline Halves load_column(const char* values, int64_t k, const Halves& factors) {
    if (kKind == PARLOR_LINEAR_F8) {  // see e4m3_as_half()
        const __m256i pairs = load_line(values + k / 2 * 32);
        const __m256i upper = k % 2 ? _mm256_and_si256(pairs, _mm256_set1_epi16(static_cast<int16_t>(0xFF00)))
                                    : _mm256_slli_epi16(pairs, 8);
        const __m256i halves =
            _mm256_and_si256(_mm256_srai_epi16(upper, 1), _mm256_set1_epi16(static_cast<int16_t>(0xBFFF)));
        return {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), factors.low),
                _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), factors.high)};
    }
    if (kKind == PARLOR_LINEAR_F32) return load_floats(reinterpret_cast<const float*>(values) + k * kLanes);
    if (kKind == PARLOR_LINEAR_F16) return load_halves(reinterpret_cast<const uint16_t*>(values) + k * kLanes);
    const char* const line = values + k / 2 * 64;
    const auto widen = [&](__m256i pairs) {
        const __m256i upper = _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000));
        return _mm256_castsi256_ps(k % 2 ? _mm256_and_si256(pairs, upper) : _mm256_slli_epi32(pairs, 16));
    };
    return {widen(load_line(line)), widen(load_line(line + 32))};
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
