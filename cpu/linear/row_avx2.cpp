// Codes of 2 to 6 bits for one row with AVX2, the high and the low plane of activations as bytes: weights in small groups, and those
// of 4 bits in groups of any size.
//
// Bound by reading the codes, as vpmaddubsw takes the bytes of a line as they are unpacked: of 4 bits 22 operations a line, where pairs
// of int16 take 30 and each half of a row block broadcasts the activations anew. It adds two products in 16 bits, and with planes of
// six bits each so do the sums of 32 columns; then they are widened. The same integers as groups_avx2.cpp's and avx2.cpp's. On a Zen 4
// 32 columns of Q4_K are 108 operations, 27 cycles if four pipes had work all the time; it takes 31 from the second-level cache and 36
// from memory.
#include "groups_avx2.h"

namespace parlor {
namespace avx2 {
namespace {

constexpr int kPrefetchBytes = 4096;  // ahead
constexpr int64_t kStepUnits = kSharedColumns / kGroupUnit;
constexpr int kLargestOfPlane = (kLargestCode + kEvenPlane / 2) / kEvenPlane;
static_assert(2 * 63 * kLargestOfPlane * (kGroupUnit / 4) <= INT16_MAX);  // of codes of 6 bits, two products at a time

inline __m256i broadcast_quad(const int8_t* x) {
    int32_t quad;
    __builtin_memcpy(&quad, x, sizeof quad);
    return _mm256_set1_epi32(quad);
}

// In this order: left to itself gcc 12 adds them in a tree, for whose leaves there are too few registers (1.3 times as slow).
inline void add_words(__m256i* sum, __m256i words) { asm volatile("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(words)); }

template <int kLines>
inline void prefetch(const uint8_t* unit) {
#pragma GCC unroll 8
    for (int line = 0; line < kLines; ++line)
        _mm_prefetch(reinterpret_cast<const char*>(unit) + line * 64 + kPrefetchBytes, _MM_HINT_T0);
}

// What both halves of a row block give for kQuads quads of a unit; high and low are those of its first column.
template <int kKind, int kQuads>
inline void multiply_quads(const uint8_t* unit, int first, const int8_t* high, const int8_t* low, __m256i (&dots)[2]) {
    __m256i high_sums[2], low_sums[2];
#pragma GCC unroll 8
    for (int q = first; q < first + kQuads; ++q) {
        const __m256i x = broadcast_quad(high + 4 * q), low_x = broadcast_quad(low + 4 * q);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const __m256i code = quad<kKind>(unit + half * 32, q, _mm256_setzero_si256());
            const __m256i product = _mm256_maddubs_epi16(code, x), low_product = _mm256_maddubs_epi16(code, low_x);
            if (q == first) {
                high_sums[half] = product;
                low_sums[half] = low_product;
            } else {
                add_words(&high_sums[half], product);
                add_words(&low_sums[half], low_product);
            }
        }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half)
        dots[half] = _mm256_add_epi32(_mm256_madd_epi16(high_sums[half], _mm256_set1_epi16(kEvenPlane)),
                                      _mm256_madd_epi16(low_sums[half], _mm256_set1_epi16(1)));
}

// The offset of a block as an integer, which it is of PARLOR_ZERO_ONE.
inline __m256i integer_offset(const float* offset) {
    int32_t start;
    __builtin_memcpy(&start, offset, sizeof start);
    return _mm256_set1_epi32(start);
}

template <int kKind, int kScale, bool kMins, int kSize>
void group_blocks(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    constexpr int kGroups = static_cast<int>(kGroupUnit) / kSize, kQuads = kSize / 4;
    constexpr bool kTwoLevels = kScale == PARLOR_SCALE_STEPS;
    const int64_t units = w.k / kGroupUnit;
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const GroupStream stream = group_stream(w, row_block);
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        __m256 sums[2], parts[2], least[2];
        for (int half = 0; half < 2; ++half) sums[half] = parts[half] = least[half] = _mm256_setzero_ps();
        const uint8_t* unit = stream.codes;
        for (int64_t u = 0; u < units; ++u, unit += unit_lines(kKind) * 64, high += kGroupUnit, low += kGroupUnit) {
            prefetch<unit_lines(kKind)>(unit);
#pragma GCC unroll 2
            for (int g = 0; g < kGroups; ++g) {
                const int64_t group = u * kGroups + g;
                __m256i dots[2];
                multiply_quads<kKind, kQuads>(unit, g * kQuads, high, low, dots);
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half) {
                    if (!kMins) dots[half] = _mm256_add_epi32(dots[half], integer_offset(tile.offsets + group));
                    const __m256 scales = load_factor<kScale>(stream.scales, group, half, true);
                    parts[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[half]), scales, parts[half]);
                    if (!kMins) continue;
                    const __m256 mins = load_factor<kScale>(stream.mins, group, half, false);
                    least[half] = _mm256_fmadd_ps(_mm256_set1_ps(tile.offsets[group]), mins, least[half]);
                }
            }
            if ((u + 1) % kStepUnits != 0 && u + 1 < units) continue;
            const int64_t span = u / kStepUnits;
            const __m256 x_scale = _mm256_set1_ps(tile.scales[span]);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const int64_t place = span * kLanes + half * 8;
                const __m256 steps = kTwoLevels ? load_8_halves(stream.steps + place) : parts[half];
                const __m256 min_steps = kTwoLevels && kMins ? load_8_halves(stream.min_steps + place) : steps;
                __m256 total = parts[half];
                if (kTwoLevels && kMins) total = _mm256_fmsub_ps(total, steps, _mm256_mul_ps(least[half], min_steps));
                else if (kTwoLevels) total = _mm256_mul_ps(total, steps);
                else if (kMins) total = _mm256_sub_ps(total, least[half]);
                sums[half] = _mm256_fmadd_ps(total, x_scale, sums[half]);
                parts[half] = least[half] = _mm256_setzero_ps();
            }
        }
        store(w, Halves{sums[0], sums[1]}, row_block, output.out, output.accumulate);
    }
}

// The forms that have no table, see linear_pack_groups().
void group_row(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    switch (w.kind) {
        case PARLOR_LINEAR_G2: return group_blocks<PARLOR_LINEAR_G2, PARLOR_SCALE_STEPS, true, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G3: return group_blocks<PARLOR_LINEAR_G3, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G4:
            if (has_steps(w)) return group_blocks<PARLOR_LINEAR_G4, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            return group_blocks<PARLOR_LINEAR_G4, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        case PARLOR_LINEAR_G5:
            if (has_steps(w)) return group_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            if (w.zero_kind == PARLOR_ZERO_ONE) return group_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, false, 32>(w, tile, first, last, output);
            return group_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        default: return group_blocks<PARLOR_LINEAR_G6, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
    }
}

// PARLOR_LINEAR_Q4, whose lines are the nibble lines of groups.
template <bool kOneZero>
void four_bit_blocks(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const uint8_t* unit = static_cast<const uint8_t*>(w.codes) + row_block * row_block_bytes(w);
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        Halves sums = zero_floats();
        const Block* block = blocks_of(w);
        for (int64_t s = 0; s < w.num_spans; ++s) {
            Halves parts = zero_floats();
            for (int b = spans_of(w)[s].first_block; b < spans_of(w)[s].last_block; ++b, ++block) {
                __m256i dots[2];
                dots[0] = dots[1] = kOneZero ? integer_offset(tile.offsets + b) : _mm256_setzero_si256();
                for (int column = 0; column < block->length; column += kColumnUnit) {
                    prefetch<unit_lines(PARLOR_LINEAR_G4)>(unit);
                    __m256i more[2];
                    multiply_quads<PARLOR_LINEAR_G4, kColumnUnit / 4>(unit, 0, high, low, more);
                    for (int half = 0; half < 2; ++half) dots[half] = _mm256_add_epi32(dots[half], more[half]);
                    unit += unit_lines(PARLOR_LINEAR_G4) * 64;
                    high += kColumnUnit;
                    low += kColumnUnit;
                }
                Halves values = {_mm256_cvtepi32_ps(dots[0]), _mm256_cvtepi32_ps(dots[1])};
                if (!kOneZero) {
                    const Halves zeros = load_zeros(w, row_block, block->group);
                    const __m256 offset = _mm256_set1_ps(tile.offsets[b]);
                    values = {_mm256_fnmadd_ps(zeros.low, offset, values.low), _mm256_fnmadd_ps(zeros.high, offset, values.high)};
                }
                parts = multiply_add(values, load_scales(w, row_block, block->group), parts);
            }
            sums = multiply_add(parts, _mm256_set1_ps(tile.scales[s]), sums);
        }
        store(w, sums, row_block, output.out, output.accumulate);
    }
}

void four_bit_row(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    (w.zero_kind == PARLOR_ZERO_ONE ? four_bit_blocks<true> : four_bit_blocks<false>)(w, tile, first, last, output);
}

}  // namespace

LinearKernels group_row_kernels() {
    return {1, [](int) { return 1; }, group_row, group_exact_rows, nullptr, stage_planes};
}

LinearKernels four_bit_row_kernels() {
    return {1, [](int) { return 1; }, four_bit_row, nullptr, nullptr, stage_planes};
}

}  // namespace avx2
}  // namespace parlor
