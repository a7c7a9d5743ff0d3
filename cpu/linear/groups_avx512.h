// What the kernels for small groups with registers of 512 bits share: scales and minimums of 16 outputs.
#pragma once

#include "avx512.h"
#include "float8.h"
#include "groups.h"

namespace parlor {
namespace PARLOR_ISA_NS {

inline __m128i load_16_bytes(const void* source, int64_t group) {
    return _mm_loadu_si128(static_cast<const __m128i*>(source) + group);
}

template <int kScale>
inline __m512 load_scales(const GroupStream& stream, int64_t group) {
    if (kScale == PARLOR_SCALE_F16) return load_halves(static_cast<const uint16_t*>(stream.scales) + group * kLanes);
    const __m128i bytes = load_16_bytes(stream.scales, group);
    if (kScale == PARLOR_SCALE_STEPS) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    if (kScale == PARLOR_SCALE_E8M0) return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23));
    return e4m3_to_float(bytes);
}

inline __m512 load_mins(bool two_levels, const GroupStream& stream, int64_t group) {
    if (two_levels) return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_16_bytes(stream.mins, group)));
    return load_halves(static_cast<const uint16_t*>(stream.mins) + group * kLanes);
}

// The table of T4, or one byte of W4's, in every quarter of a register.
inline __m512i load_table(const linear_weight& w, int byte) {
    alignas(64) uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(w.table[i] >> 8 * byte);
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// a * b in an instruction of its own, whatever is added to it afterwards.
inline __m512 multiplied(__m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, _mm512_setzero_ps()); }

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
