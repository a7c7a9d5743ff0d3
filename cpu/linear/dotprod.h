// Codes of quantized weights as NEON's dot products (ARMv8.2's sdot, ARMv8.6's smmla) take them.
//
// sdot adds, for each of four outputs, the products of its four columns with four of x, all int8. A line of the packed layout
// is four registers of that (linear.h, groups.h). Codes of 4 to 6 bits are int8 as they are; bytes are taken minus kByteBias,
// which staging has put into the offsets (stage.cpp).
#pragma once

#include <arm_neon.h>

#include <type_traits>
#include <utility>

#include "groups.h"

namespace parlor {
namespace PARLOR_ISA_NS {

constexpr int kFewRows = 4;   // of a tile at most, or
constexpr int kManyRows = 8;  // exactly, staged in pairs where there is smmla (stage.cpp)
constexpr int kQuarters = 4;                                  // of a row block: four outputs each
constexpr int kUnitQuads = static_cast<int>(kGroupUnit) / 4;  // four columns each

// visit(std::integral_constant<int, i>) for all i < kCount: lanes and shifts are immediates.
template <class Visit, int... kIndex>
inline __attribute__((always_inline)) void for_constants(Visit visit, std::integer_sequence<int, kIndex...>) {
    (visit(std::integral_constant<int, kIndex>()), ...);
}
template <int kCount, class Visit>
inline __attribute__((always_inline)) void for_constants(Visit visit) {
    for_constants(visit, std::make_integer_sequence<int, kCount>());
}

inline constexpr int unit_bytes(int kind) {
    return kind == PARLOR_LINEAR_Q8 ? 8 * 64 : kind == PARLOR_LINEAR_Q4 ? 4 * 64 : unit_lines(kind) * 64;
}

// What codes are looked up in; of W4 the lower bytes and the upper ones.
struct Tables {
    int8x16_t lower, upper;

    explicit Tables(const linear_weight& w) {
        uint8_t bytes[2][16];
        for (int i = 0; i < 16; ++i) {
            bytes[0][i] = static_cast<uint8_t>(w.table[i] ^ kByteBias);
            bytes[1][i] = static_cast<uint8_t>(w.table[i] >> 8);
        }
        lower = vreinterpretq_s8_u8(vld1q_u8(bytes[0]));
        upper = vreinterpretq_s8_u8(vld1q_u8(bytes[1]));
    }
};

template <int kLeft>
inline uint8x16_t shifted(uint8x16_t bytes) {
    if constexpr (kLeft > 0) return vshlq_n_u8(bytes, kLeft);
    else if constexpr (kLeft < 0) return vshrq_n_u8(bytes, -kLeft);
    else return bytes;
}

// Columns 4 kQuad .. 4 kQuad + 3 of four outputs; `unit` points at theirs in the unit's first line. Of tables the codes.
template <int kKind, int kQuad>
inline int8x16_t quad_codes(const uint8_t* unit) {
    if constexpr (kKind == PARLOR_LINEAR_Q8) return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(unit + kQuad * 64), vdupq_n_u8(kByteBias)));
    uint8x16_t code = vdupq_n_u8(0);
    constexpr bool kNibbles = kKind == PARLOR_LINEAR_Q4 || has_nibbles(kKind);
    if constexpr (kNibbles) {
        const uint8x16_t line = vld1q_u8(unit + kQuad / 2 * 64);
        code = kQuad % 2 ? vshrq_n_u8(line, 4) : vandq_u8(line, vdupq_n_u8(15));
    }
    if constexpr (has_pairs(kKind)) {
        constexpr int kTo = kKind == PARLOR_LINEAR_G6 ? 4 : 0;
        const uint8x16_t line = vld1q_u8(unit + (kNibbles * 4 + kQuad / 4) * 64);
        code = vorrq_u8(code, vandq_u8(shifted<kTo - kQuad % 4 * 2>(line), vdupq_n_u8(3 << kTo)));
    }
    if constexpr (has_bits(kKind)) {
        constexpr int kTo = kKind == PARLOR_LINEAR_G5 ? 4 : 2;
        const uint8x16_t line = vld1q_u8(unit + (kNibbles * 4 + has_pairs(kKind) * 2) * 64);
        code = vorrq_u8(code, vandq_u8(shifted<kTo - kQuad>(line), vdupq_n_u8(1 << kTo)));
    }
    return vreinterpretq_s8_u8(code);
}

inline float32x4_t load_4_halves(const uint16_t* source) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(source))); }

// Four unsigned bytes, or signed ones.
inline float32x4_t load_4_bytes(const uint8_t* source, bool is_signed) {
    uint32_t word;
    __builtin_memcpy(&word, source, sizeof word);
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(word));
    if (is_signed) return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(bytes)))));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
