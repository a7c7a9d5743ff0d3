// One vector of floats, as wide as the set this file is compiled for: 16 lanes (AVX-512), 8 (AVX2), 4 (plain).
//
// The plain form uses the compilers' vector extension, so that it is SSE2 on any x86-64 and NEON on ARM.
// `_n` forms touch only the first n lanes in memory (0 < n < kLanes) and read zeros for the rest.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace parlor {
namespace PARLOR_ISA_NS {

using half_t = uint16_t;      // IEEE binary16, as bits
using bfloat_t = struct bfloat_bits { uint16_t bits; };

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Vec = __m512;

inline Vec set1(float x) { return _mm512_set1_ps(x); }
inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a); }
inline float largest(Vec a) { return _mm512_reduce_max_ps(a); }
inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline Vec load(const half_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_n(const half_t* p, int64_t n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p)); }
inline Vec widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vec load(const bfloat_t* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_n(const bfloat_t* p, int64_t n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }

inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
inline void store_n(float* p, Vec a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a); }
inline __m256i to_half(Vec a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store(half_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_half(a)); }
inline void store_n(half_t* p, Vec a, int64_t n) { _mm256_mask_storeu_epi16(p, first(n), to_half(a)); }

inline Vec round_to_int(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec times_power_of_2(Vec a, Vec exponent) { return _mm512_scalef_ps(a, exponent); }

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using Vec = __m256;

inline Vec set1(float x) { return _mm256_set1_ps(x); }
inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline float sum(Vec a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float largest(Vec a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m128i load_words_n(const void* p, int64_t n) {  // AVX2 has no masked load of 16-bit words
    alignas(16) uint16_t words[8] = {};
    std::memcpy(words, p, static_cast<size_t>(n) * 2);
    return _mm_load_si128(reinterpret_cast<const __m128i*>(words));
}

inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
inline Vec load(const half_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec load_n(const half_t* p, int64_t n) { return _mm256_cvtph_ps(load_words_n(p, n)); }
inline Vec widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec load(const bfloat_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec load_n(const bfloat_t* p, int64_t n) { return widen(load_words_n(p, n)); }

inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
inline void store_n(float* p, Vec a, int64_t n) { _mm256_maskstore_ps(p, first(n), a); }
inline __m128i to_half(Vec a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store(half_t* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_half(a)); }
inline void store_n(half_t* p, Vec a, int64_t n) {
    const __m128i words = to_half(a);
    std::memcpy(p, &words, static_cast<size_t>(n) * 2);
}

inline Vec round_to_int(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec times_power_of_2(Vec a, Vec exponent) {
    const __m256i shifted = _mm256_slli_epi32(_mm256_cvtps_epi32(exponent), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shifted));
}

#else

constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t IntVec __attribute__((vector_size(16)));

inline Vec set1(float x) { return Vec{x, x, x, x}; }
inline Vec zero() { return set1(0.0f); }
#if defined(__aarch64__)
inline Vec fma(Vec a, Vec b, Vec c) { return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline float sum(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float largest(Vec a) {
    const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
}

// binary16 -> binary32 by shifting the exponent in place; subnormals by an exact subtraction.
inline float half_to_float(half_t h) {
    const uint32_t magnitude = static_cast<uint32_t>(h & 0x7FFF) << 13, sign = static_cast<uint32_t>(h & 0x8000) << 16;
    uint32_t bits;
    if (magnitude >= 0x0F800000) {  // infinity, NaN
        bits = magnitude | 0x7F800000;
    } else if (magnitude >= 0x00800000) {
        bits = magnitude + 0x38000000;
    } else {
        const uint32_t offset = magnitude + 0x38800000;
        float x;
        std::memcpy(&x, &offset, 4);
        x -= 6.103515625e-05f;  // 2^-14
        std::memcpy(&bits, &x, 4);
    }
    bits |= sign;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// binary32 -> binary16, to nearest even.
inline half_t float_to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = (bits >> 16) & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) return static_cast<half_t>(sign | 0x7E00 | ((bits >> 13) & 0x3FF));
    if (bits >= 0x477FF000) return static_cast<half_t>(sign | 0x7C00);  // 65520 and above
    if (bits < 0x38800000) {  // below 2^-14: adding 0.5 lets the hardware round to multiples of 2^-24
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, 4);
        return static_cast<half_t>(sign | (bits - 0x3F000000));
    }
    bits += 0xFFF + ((bits >> 13) & 1);
    return static_cast<half_t>(sign | ((bits - 0x38000000) >> 13));
}

inline float to_float(float x) { return x; }
inline float to_float(half_t x) { return half_to_float(x); }
inline float to_float(bfloat_t x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

template <class Element>
inline Vec load(const Element* p) { return Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}; }
inline Vec load(const float* p) {
    Vec a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
#if defined(__aarch64__)
inline Vec load(const half_t* p) { return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
#endif
template <class Element>
inline Vec load_n(const Element* p, int64_t n) {
    Vec a = zero();
    for (int64_t i = 0; i < n; ++i) a[i] = to_float(p[i]);
    return a;
}
inline void store(float* p, Vec a) { std::memcpy(p, &a, sizeof a); }
inline void store_n(float* p, Vec a, int64_t n) { std::memcpy(p, &a, static_cast<size_t>(n) * 4); }
inline void store_n(half_t* p, Vec a, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = float_to_half(a[i]);
}
#if defined(__aarch64__)
inline void store(half_t* p, Vec a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a))); }
#else
inline void store(half_t* p, Vec a) { store_n(p, a, kLanes); }
#endif

inline Vec round_to_int(Vec a) {  // to nearest even for |a| < 2^22
    const Vec magic = set1(12582912.0f);
    return (a + magic) - magic;
}
inline Vec times_power_of_2(Vec a, Vec exponent) {
    const IntVec shifted = __builtin_convertvector(exponent, IntVec) << 23;
    IntVec bits;
    std::memcpy(&bits, &a, sizeof bits);
    bits += shifted;
    std::memcpy(&a, &bits, sizeof a);
    return a;
}

#endif

// exp(x), relative error below 2e-7, for -87.3 <= x <= 88.
// Cody-Waite reduction and the polynomial of Cephes' expf.
inline Vec exp_within(Vec x) {
    const Vec n = round_to_int(x * set1(1.44269504088896341f));
    Vec r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    Vec p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, r * r, r) + set1(1.0f);
    return times_power_of_2(p, n);
}

// The same of any x: below -87.3 counts as -87.3, above 88 as 88.
inline Vec exp(Vec x) {
#if defined(__AVX512F__)
    return exp_within(_mm512_min_ps(max(x, set1(-87.3f)), set1(88.0f)));
#elif defined(__AVX2__)
    return exp_within(_mm256_min_ps(max(x, set1(-87.3f)), set1(88.0f)));
#else
    x = max(x, set1(-87.3f));
    return exp_within(x < set1(88.0f) ? x : set1(88.0f));
#endif
}

// exp(x) for x <= 0, exactly zero below -87.3 and for -inf.
inline Vec exp_or_zero(Vec x) {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set1(-87.3f), _CMP_GE_OQ), exp_within(x));
#elif defined(__AVX2__)
    return _mm256_and_ps(_mm256_cmp_ps(x, set1(-87.3f), _CMP_GE_OQ), exp_within(x));
#else
    return x >= set1(-87.3f) ? exp(x) : zero();
#endif
}

// Every vector of 0..n once: full(i) for whole ones, part(i, count) for the rest.
template <class Full, class Part>
inline void for_lanes(int64_t n, Full full, Part part) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) full(i);
    if (i < n) part(i, n - i);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
