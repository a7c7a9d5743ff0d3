// What this machine allows: how fast all threads together read memory, and how many products they make of the kind
// that the linear layers of the set are made of (int8, on ARM with dot products too; bf16 with AMX, as prompts are; int16 on AVX2 and AVX-VNNI; float32 in plain code). tools/benchmark runs these
// in turn with the engine, whose speed it reports as a share of them.
#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers
#endif
#include <immintrin.h>
#elif defined(PARLOR_DOTPROD)
#include <arm_neon.h>
#endif

#include "limits.h"
#if defined(__AVXVNNI__)
#include "avx2.h"
#endif
#if defined(__AMX_BF16__)
#include "tiles.h"
#endif

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kStreams = 4;
constexpr int64_t kLine = 64;

}  // namespace

// Four streams side by side, prefetched into the second-level cache.
uint64_t read_memory(const char* memory, int64_t bytes) {
    const int64_t length = bytes / kStreams / kLine * kLine;
#if defined(__AVX512F__)
    __m512i sums[kStreams] = {};
    for (int64_t i = 0; i < length; i += kLine) {
#pragma GCC unroll 4
        for (int64_t s = 0; s < kStreams; ++s) {
            const char* const line = memory + s * length + i;
            _mm_prefetch(line + 2048, _MM_HINT_T1);
            sums[s] = _mm512_xor_si512(sums[s], _mm512_loadu_si512(line));
        }
    }
    uint64_t words[8];
    _mm512_storeu_si512(words, sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
    return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
#elif defined(__AVX2__)
    __m256i sums[kStreams] = {};
    for (int64_t i = 0; i < length; i += kLine) {
#pragma GCC unroll 4
        for (int64_t s = 0; s < kStreams; ++s) {
            const char* const line = memory + s * length + i;
            _mm_prefetch(line + 512, _MM_HINT_T0);
            const __m256i* const words = reinterpret_cast<const __m256i*>(line);
            sums[s] = _mm256_xor_si256(sums[s], _mm256_xor_si256(_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)));
        }
    }
    uint64_t words[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
#else
    uint64_t sums[kStreams][kLine / 8] = {};
    for (int64_t i = 0; i < length; i += kLine) {
        for (int64_t s = 0; s < kStreams; ++s) {
            __builtin_prefetch(memory + s * length + i + 1024, 0, 2);
            for (int64_t j = 0; j < kLine / 8; ++j) {
                uint64_t word;
                __builtin_memcpy(&word, memory + s * length + i + j * 8, 8);
                sums[s][j] ^= word;
            }
        }
    }
    uint64_t sum = 0;
    for (const auto& stream : sums)
        for (const uint64_t word : stream) sum ^= word;
    return sum;
#endif
}

// Returns the operations done (a product and a sum are two), all on registers.
int64_t multiply_registers(int64_t rounds) {
#if defined(__AMX_BF16__)
    // Numbers between 0.5 and 2 of all bits and both signs: products of zeros let the clock rise by a fifth.
    alignas(64) uint16_t numbers[4][16 * 32];
    uint32_t state = 1;
    for (auto& tile : numbers)
        for (uint16_t& number : tile) {
            state = state * 1664525 + 1013904223;  // Numerical Recipes' generator
            number = static_cast<uint16_t>((state >> 16 & 0x80FF) | 0x3F00);
        }
    configure_tiles();
    keep_memory_order();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, numbers[0], 64);
    _tile_loadd(5, numbers[1], 64);
    _tile_loadd(6, numbers[2], 64);
    _tile_loadd(7, numbers[3], 64);
    for (int64_t i = 0; i < rounds; ++i) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return rounds * 4 * 16 * 16 * 32 * 2;
#elif defined(__AVX512VNNI__)
    __m512i sums[12] = {};
    const __m512i codes = _mm512_set1_epi8(1);
    for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (__m512i& sum : sums) {
            sum = _mm512_dpbusd_epi32(sum, codes, codes);
            asm volatile("" : "+v"(sum));
        }
    }
    return rounds * 12 * 64 * 2;
#elif defined(__AVX2__)
    constexpr int kSums = 12;
    __m256i sums[kSums];
    for (__m256i& sum : sums) sum = _mm256_setzero_si256();
    __m256i pairs = _mm256_set1_epi16(1);
    for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (__m256i& sum : sums) {
            asm volatile("" : "+x"(pairs));  // so that each product is made anew
#if defined(__AVXVNNI__)
            sum = dpwssd(sum, pairs, pairs);
            asm volatile("" : "+x"(sum));
#else
            const __m256i products = _mm256_madd_epi16(pairs, pairs);
            asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
#endif
        }
    }
    return rounds * kSums * 16 * 2;
#elif defined(PARLOR_DOTPROD)
#if defined(PARLOR_I8MM)
    constexpr int kProducts = 32;
    const auto product = [](int32x4_t sum, int8x16_t a, int8x16_t b) { return vmmlaq_s32(sum, a, b); };
#else
    constexpr int kProducts = 16;
    const auto product = [](int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); };
#endif
    int32x4_t sums[16] = {};
    const int8x16_t codes = vdupq_n_s8(1);
    for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
        for (int32x4_t& sum : sums) {
            sum = product(sum, codes, codes);
            asm volatile("" : "+w"(sum));
        }
    }
    return rounds * 16 * kProducts * 2;
#else
    float sums[64] = {};
    for (int64_t i = 0; i < rounds; ++i) {
        for (float& sum : sums) sum = sum * 0.5f + 1.0f;
        asm volatile("" : "+m"(sums));
    }
    return rounds * 64 * 2;
#endif
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
