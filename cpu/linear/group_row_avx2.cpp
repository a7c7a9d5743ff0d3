// Weights in small groups, codes of 2 to 6 bits, for one row with AVX2: the high and the low plane of activations as bytes.
//
// Bound by reading the codes, as vpmaddubsw takes the bytes of a line as they are unpacked: of G4 22 operations a line, where pairs of
// int16 take 30 and each half of a row block broadcasts the activations anew. It adds two products in 16 bits, and so many more sums of
// those fit in there as kWordQuads says; then they are widened. The same integers as groups_avx2.cpp's. 1.6 times as fast on a Zen 4.
#include "groups_avx2.h"

namespace parlor {
namespace avx2 {
namespace {

constexpr int kPrefetchBytes = 2048;  // ahead
constexpr int kLargestHigh = (kLargestCode + kHighPlane / 2) / kHighPlane;

// Quads of codes that can be multiplied with the high plane before 16 bits are too few.
template <int kKind>
constexpr int kWordQuads = 32767 / (2 * ((1 << unit_lines(kKind)) - 1) * kLargestHigh);

inline __m256i broadcast_quad(const int8_t* x) {
    int32_t quad;
    __builtin_memcpy(&quad, x, sizeof quad);
    return _mm256_set1_epi32(quad);
}

template <int kKind, int kScale, bool kMins, int kSize>
void row_blocks(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    constexpr int kGroups = static_cast<int>(kGroupUnit) / kSize, kQuads = kSize / 4;
    constexpr int kTogether = kWordQuads<kKind> < kQuads ? kWordQuads<kKind> : kQuads;
    constexpr bool kTwoLevels = kScale == PARLOR_SCALE_STEPS;
    const int64_t units = w.k / kGroupUnit;
    const __m256i none = _mm256_setzero_si256();
    for (int64_t row_block = first; row_block < last; ++row_block) {
        const GroupStream stream = group_stream(w, row_block);
        const int8_t* high = static_cast<const int8_t*>(tile.codes[0]);
        const int8_t* low = static_cast<const int8_t*>(tile.codes[1]);
        __m256 sums[2], parts[2], least[2];
        for (int half = 0; half < 2; ++half) sums[half] = parts[half] = least[half] = _mm256_setzero_ps();
        const uint8_t* unit = stream.codes;
        for (int64_t u = 0; u < units; ++u, unit += kUnitBytes, high += kGroupUnit, low += kGroupUnit) {
#pragma GCC unroll 8
            for (int line = 0; line < unit_lines(kKind); ++line)
                _mm_prefetch(reinterpret_cast<const char*>(unit) + line * 64 + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 2
            for (int g = 0; g < kGroups; ++g) {
                const int64_t group = u * kGroups + g;
                int32_t start;
                __builtin_memcpy(&start, tile.offsets + group, sizeof start);
                __m256i dots[2], low_sums[2];
                dots[0] = dots[1] = kMins ? none : _mm256_set1_epi32(start);
#pragma GCC unroll 8
                for (int begin = 0; begin < kQuads; begin += kTogether) {
                    __m256i high_sums[2];
#pragma GCC unroll 8
                    for (int i = begin; i < begin + kTogether; ++i) {
                        const int q = g * kQuads + i;
                        const __m256i x = broadcast_quad(high + 4 * q), low_x = broadcast_quad(low + 4 * q);
#pragma GCC unroll 2
                        for (int half = 0; half < 2; ++half) {
                            const __m256i code = quad<kKind>(unit + half * 32, q, none);
                            const __m256i product = _mm256_maddubs_epi16(code, x), low_product = _mm256_maddubs_epi16(code, low_x);
                            high_sums[half] = i == begin ? product : _mm256_add_epi16(high_sums[half], product);
                            low_sums[half] = i == 0 ? low_product : _mm256_add_epi16(low_sums[half], low_product);
                        }
                    }
#pragma GCC unroll 2
                    for (int half = 0; half < 2; ++half)
                        dots[half] = _mm256_add_epi32(dots[half], _mm256_madd_epi16(high_sums[half], _mm256_set1_epi16(kHighPlane)));
                }
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half) {
                    const __m256i dot = _mm256_add_epi32(dots[half], _mm256_madd_epi16(low_sums[half], _mm256_set1_epi16(1)));
                    const __m256 scales = load_factor<kScale>(stream.scales, group, half, true);
                    parts[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scales, parts[half]);
                    if (!kMins) continue;
                    const __m256 mins = load_factor<kScale>(stream.mins, group, half, false);
                    least[half] = _mm256_fmadd_ps(_mm256_set1_ps(tile.offsets[group]), mins, least[half]);
                }
            }
            if ((u + 1) % (kSharedColumns / kGroupUnit) != 0 && u + 1 < units) continue;
            const int64_t span = u / (kSharedColumns / kGroupUnit);
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
void rounded_row(const linear_weight& w, const Tile& tile, int64_t first, int64_t last, const Output& output) {
    switch (w.kind) {
        case PARLOR_LINEAR_G2: return row_blocks<PARLOR_LINEAR_G2, PARLOR_SCALE_STEPS, true, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G3: return row_blocks<PARLOR_LINEAR_G3, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
        case PARLOR_LINEAR_G4:
            if (has_steps(w)) return row_blocks<PARLOR_LINEAR_G4, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            return row_blocks<PARLOR_LINEAR_G4, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        case PARLOR_LINEAR_G5:
            if (has_steps(w)) return row_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_STEPS, true, 32>(w, tile, first, last, output);
            if (w.zero_kind == PARLOR_ZERO_ONE) return row_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, false, 32>(w, tile, first, last, output);
            return row_blocks<PARLOR_LINEAR_G5, PARLOR_SCALE_F16, true, 32>(w, tile, first, last, output);
        default: return row_blocks<PARLOR_LINEAR_G6, PARLOR_SCALE_STEPS, false, 16>(w, tile, first, last, output);
    }
}

}  // namespace

LinearKernels group_row_kernels() {
    return {1, [](int) { return 1; }, rounded_row, group_exact_rows, nullptr, stage_planes};
}

}  // namespace avx2
}  // namespace parlor
