// One register of 8 (AVX2) or 16 (AVX-512) lanes of 32 bits, by the same names: for kernels that are written once for both.
#pragma once

#if defined(__AVX512F__)
#include "avx512.h"
#else
#include "avx2.h"
#endif

namespace parlor {
namespace PARLOR_ISA_NS {

#if defined(__AVX512F__)

using Floats = __m512;
using Ints = __m512i;
constexpr int kRegisterLanes = 16;

inline Floats load_register(const float* source) { return _mm512_loadu_ps(source); }
inline Ints load_register(const void* source) { return _mm512_loadu_si512(source); }
inline void store_register(float* target, Floats values) { _mm512_storeu_ps(target, values); }
inline void store_register(void* target, Ints values) { _mm512_storeu_si512(target, values); }
inline Floats all_floats(float value) { return _mm512_set1_ps(value); }
inline Ints all_words(int value) { return _mm512_set1_epi32(value); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints shifted(Ints a, int left) {  // words of 32 bits
    return left > 0 ? _mm512_slli_epi32(a, left) : left < 0 ? _mm512_srli_epi32(a, -left) : a;
}
inline Ints upper_bytes(Ints a) { return _mm512_srli_epi16(a, 8); }  // of words of 16 bits
inline Ints lower_to_upper_bytes(Ints a) { return _mm512_slli_epi16(a, 8); }
inline Ints minus(Ints a, Ints b) { return _mm512_sub_epi16(a, b); }
inline Ints looked_up(Ints table, Ints indices) { return _mm512_shuffle_epi8(table, indices); }
inline Ints repeated(const uint8_t* bytes) {  // 16 of them
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}
inline Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Floats halves_to_floats(const uint16_t* source) { return load_halves(source); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
inline Floats subtract_product(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }

// Two words of 16 bits in every lane. In a register of its own: as an operand in memory it would be loaded for each product.
inline Ints all_pairs(const int16_t* source) {
    Ints pairs = broadcast_word(source);
#if defined(__AVX512VNNI__)
    asm("" : "+v"(pairs));
#endif
    return pairs;
}

// sum += a * b, pairs of int16 into int32. The sum stays where it is, see avx2.h.
inline void add_products(Ints* sum, Ints a, Ints b) {
    *sum = _mm512_dpwssd_epi32(*sum, a, b);
#if defined(__AVX512VNNI__)
    asm volatile("" : "+v"(*sum));
#endif
}

// sum = a * b
inline void set_products(Ints* sum, Ints a, Ints b) {
    *sum = all_words(0);
    add_products(sum, a, b);
}

#else

using Floats = __m256;
using Ints = __m256i;
constexpr int kRegisterLanes = 8;

inline Floats load_register(const float* source) { return _mm256_loadu_ps(source); }
inline Ints load_register(const void* source) { return load_line(source); }
inline void store_register(float* target, Floats values) { _mm256_storeu_ps(target, values); }
inline void store_register(void* target, Ints values) { _mm256_storeu_si256(static_cast<__m256i*>(target), values); }
inline Floats all_floats(float value) { return _mm256_set1_ps(value); }
inline Ints all_words(int value) { return _mm256_set1_epi32(value); }
inline Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints shifted(Ints a, int left) {
    return left > 0 ? _mm256_slli_epi32(a, left) : left < 0 ? _mm256_srli_epi32(a, -left) : a;
}
inline Ints upper_bytes(Ints a) { return _mm256_srli_epi16(a, 8); }
inline Ints lower_to_upper_bytes(Ints a) { return _mm256_slli_epi16(a, 8); }
inline Ints minus(Ints a, Ints b) { return _mm256_sub_epi16(a, b); }
inline Ints looked_up(Ints table, Ints indices) { return _mm256_shuffle_epi8(table, indices); }
inline Ints repeated(const uint8_t* bytes) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}
inline Floats to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
inline Floats halves_to_floats(const uint16_t* source) { return load_8_halves(source); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm256_fmsub_ps(a, b, c); }
inline Floats subtract_product(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
inline Ints all_pairs(const int16_t* source) { return broadcast_pair(source); }

#endif

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
