// Weights in small groups, as GGML's types have them: a scale for 16, 32 or more columns, in one or two levels, and a minimum
// or a zero point.
//
//   weight = (code - zero) * scale * step - minimum * min_step     (T4, W4: table[code] instead of code)
//
// With scales of 8 bits that are no steps, and of W4, an output's weights are also multiplied by its factor.
//
// Packed layout, beside what linear.h says. Columns come in units of 32. A unit of a row block has as many lines of 64
// bytes as a code has bits, in this order; a line has 4 bytes for each of 16 outputs:
//   4 nibble lines  of G4 to W4         byte b of line i: column 8 i + b in the low bits, 8 i + 4 + b in the high ones
//   2 pair lines    of G2, G3, G6       byte b of line h: two bits of column 16 h + 4 f + b from bit 2 f on
//   1 bit line      of G3, G5           byte b: one bit of column 4 f + b at bit f
// Pairs are the upper bits of G6, the single bit is the uppermost of G3 and G5.
//   scales [row blocks][groups][16] float16 or a byte;   mins the same, float16 or uint8
//   steps, min_steps [row blocks][k / 256][16] float16, in two levels
//   factors [row blocks][16] float32
// A block is a group, of W4 32 columns; a span 256 columns: just what shares a step.
//
// Arithmetic, the same to the bit on every set that has a fused multiply-add:
//   group:  part = fma(float(dot - zero * sum of activation codes), scale, part);   with minimums float(dot), and
//           least = fma(float(sum of activation codes), minimum, least)
//   span:   total = part - least;   in two levels fma(part, step, -(least * min_step)), without minimums part * step
//           sum = fma(total, activation scale, sum);   in the end sum * factor
// The values of W4 have 15 bits: sums of integers may overflow and come back, as the table and the zero point are off by 2^14.
#pragma once

#include "linear.h"

namespace parlor {

constexpr int64_t kGroupUnit = 32;      // columns
constexpr int64_t kSharedColumns = 256;  // that share a step

inline constexpr bool has_nibbles(int kind) { return kind >= PARLOR_LINEAR_G4; }
inline constexpr bool has_pairs(int kind) {
    return kind == PARLOR_LINEAR_G2 || kind == PARLOR_LINEAR_G3 || kind == PARLOR_LINEAR_G6;
}
inline constexpr bool has_bits(int kind) { return kind == PARLOR_LINEAR_G3 || kind == PARLOR_LINEAR_G5; }
inline constexpr bool has_table(int kind) { return kind == PARLOR_LINEAR_T4 || kind == PARLOR_LINEAR_W4; }
inline constexpr int unit_lines(int kind) { return has_nibbles(kind) * 4 + has_pairs(kind) * 2 + has_bits(kind); }

inline bool has_steps(const linear_weight& w) { return w.scale_kind == PARLOR_SCALE_STEPS; }
inline int64_t num_steps_of(const linear_weight& w) { return has_steps(w) ? w.k / kSharedColumns : 0; }
inline bool has_factors(const linear_weight& w) {
    return w.kind == PARLOR_LINEAR_W4 || w.scale_kind == PARLOR_SCALE_E8M0 || w.scale_kind == PARLOR_SCALE_E4M3;
}

// Where a row block's parts lie.
struct GroupStream {
    const uint8_t* codes;
    const void* scales;
    const void* mins;  // null: none
    const uint16_t* steps;
    const uint16_t* min_steps;
    const float* factors;  // null: none
};

inline GroupStream group_stream(const linear_weight& w, int64_t row_block) {
    const int64_t first = row_block * w.num_groups * kLanes, step = row_block * num_steps_of(w) * kLanes;
    const int64_t bytes = w.scale_kind == PARLOR_SCALE_F16 ? 2 : 1;
    const bool has_mins = w.zero_kind == PARLOR_ZERO_MIN;
    return {static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w),
            reinterpret_cast<const uint8_t*>(w.scales) + first * bytes,
            has_mins ? static_cast<const uint8_t*>(w.zeros) + first * bytes : nullptr,
            w.steps + step, w.min_steps + step, has_factors(w) ? w.factors + row_block * kLanes : nullptr};
}

// One code of a unit, or what the table holds for it, zero point included.
inline int group_code(const linear_weight& w, const uint8_t* unit, int column, int64_t lane) {
    const int quad = column / 4, place = static_cast<int>(lane * 4) + column % 4;
    int code = 0;
    if (has_nibbles(w.kind)) {
        code = unit[quad / 2 * 64 + place] >> quad % 2 * 4 & 15;
        unit += 4 * 64;
    }
    if (has_table(w.kind)) return w.table[code];
    if (has_pairs(w.kind)) {
        const int pair = unit[quad / 4 * 64 + place] >> quad % 4 * 2 & 3;
        code |= w.kind == PARLOR_LINEAR_G6 ? pair << 4 : pair;
        unit += 2 * 64;
    }
    if (has_bits(w.kind)) code |= (unit[place] >> quad & 1) << (w.kind == PARLOR_LINEAR_G5 ? 4 : 2);
    return code;
}

inline float group_scale(const linear_weight& w, const GroupStream& stream, int64_t group, int64_t lane) {
    const int64_t place = group * kLanes + lane;
    const uint8_t byte = static_cast<const uint8_t*>(stream.scales)[place];
    switch (w.scale_kind) {
        case PARLOR_SCALE_STEPS: return static_cast<int8_t>(byte);
        case PARLOR_SCALE_E8M0: return bits_to_float(static_cast<uint32_t>(byte) << 23);
        case PARLOR_SCALE_E4M3: return half_to_float(e4m3_as_half(byte));
        default: return half_to_float(static_cast<const uint16_t*>(stream.scales)[place]);
    }
}

inline float group_factor(const GroupStream& stream, int64_t lane) { return stream.factors ? stream.factors[lane] : 1.0f; }

inline float group_min(const linear_weight& w, const GroupStream& stream, int64_t group, int64_t lane) {
    if (!stream.mins) return 0.0f;
    if (has_steps(w)) return static_cast<const uint8_t*>(stream.mins)[group * kLanes + lane];
    return half_to_float(static_cast<const uint16_t*>(stream.mins)[group * kLanes + lane]);
}

}  // namespace parlor

// LinearKernels::exact_rows
PARLOR_DECLARE(void, group_exact_rows, const linear_weight& w, const Tile& tile, int64_t first, int64_t last,
               const Output& output)
