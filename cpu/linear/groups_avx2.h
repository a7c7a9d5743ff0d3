// What the AVX2 kernels for small groups share: codes, scales and minimums of 8 outputs.
#pragma once

#include "avx2.h"
#include "groups.h"

namespace parlor {
namespace PARLOR_ISA_NS {

inline __m256 widen_bytes(const void* source, int64_t group, int half, bool is_signed) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(
        static_cast<const uint8_t*>(source) + group * kLanes + half * 8));
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
}

// Scales of 8 outputs, or their minimums, of which those of steps are unsigned.
template <int kScale>
inline __m256 load_factor(const void* source, int64_t group, int half, bool is_signed) {
    const int64_t place = group * kLanes + half * 8;
    if (kScale == PARLOR_SCALE_F16) return load_8_halves(static_cast<const uint16_t*>(source) + place);
    if (kScale == PARLOR_SCALE_STEPS) return widen_bytes(source, group, half, is_signed);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(source) + place));
    if (kScale == PARLOR_SCALE_E8M0) return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23));
    const __m128i words = _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes), 1);  // see e4m3_as_half()
    return _mm256_cvtph_ps(_mm_and_si128(words, _mm_set1_epi16(static_cast<int16_t>(0xBFFF))));
}

// Codes of columns 4 q .. 4 q + 3 of eight outputs, a byte each, of T4 what the table holds; `unit` points at that half of the
// first line.
template <int kKind>
inline __m256i quad(const uint8_t* unit, int q, __m256i table) {
    const auto shifted = [](__m256i line, int left) {
        return left > 0 ? _mm256_slli_epi32(line, left) : left < 0 ? _mm256_srli_epi32(line, -left) : line;
    };
    __m256i code = _mm256_setzero_si256();
    if (has_nibbles(kKind)) {
        code = _mm256_and_si256(shifted(load_line(unit + q / 2 * 64), q % 2 ? -4 : 0), _mm256_set1_epi8(15));
        if (kKind == PARLOR_LINEAR_T4) code = _mm256_shuffle_epi8(table, code);
        unit += 4 * 64;
    }
    if (has_pairs(kKind)) {
        const int to = kKind == PARLOR_LINEAR_G6 ? 4 : 0;
        const __m256i pairs = shifted(load_line(unit + q / 4 * 64), to - q % 4 * 2);
        code = _mm256_or_si256(code, _mm256_and_si256(pairs, _mm256_set1_epi8(static_cast<char>(3 << to))));
        unit += 2 * 64;
    }
    if (has_bits(kKind)) {
        const int to = kKind == PARLOR_LINEAR_G5 ? 4 : 2;
        const __m256i bits = shifted(load_line(unit), to - q);
        code = _mm256_or_si256(code, _mm256_and_si256(bits, _mm256_set1_epi8(static_cast<char>(1 << to))));
    }
    return code;
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
