// Stands in for the compiler's <immintrin.h> when cpu/ is compiled for machines without AVX-512 or AMX, so that
// the tests run every kernel anywhere: the AVX-512 intrinsics that cpu/ uses, lane by lane in plain C++. (tiles.h: AMX.)
//
// As strict as the processor: aligned accesses fault on unaligned addresses, masked lanes of memory are not touched.
// It shows what a source says, not what the compiler made of it: mistakes that a compiler makes with the real
// intrinsics (see configure_tiles() in cpu/linear/amx.cpp) it cannot show.
// An intrinsic that is missing here is a compile error: add it, after the "Operation" of Intel's Intrinsics Guide.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

typedef float __m512 __attribute__((vector_size(64)));
typedef long long __m512i __attribute__((vector_size(64)));
typedef long long __m256i __attribute__((vector_size(32)));
typedef long long __m128i __attribute__((vector_size(16)));
typedef short __m512bh __attribute__((vector_size(64)));
typedef uint16_t __mmask16;

// Where cpu/ unrolls loops, these would be copied into the code a thousand times.
#define EMULATED_CALL __attribute__((noinline)) inline

namespace emulated {

[[noreturn]] inline void fail(const char* rule, long long value) {
    std::fprintf(stderr, "emulated instruction set: %s (%lld)\n", rule, value);
    std::abort();
}

// The lanes of a register, which is 16 to 64 bytes long.
template <class Lane, class Register>
struct Lanes {
    static constexpr int kCount = sizeof(Register) / sizeof(Lane);
    Lane lane[kCount];

    Lanes() = default;
    explicit Lanes(const Register& source) { std::memcpy(lane, &source, sizeof lane); }
    Lane& operator[](int i) { return lane[i]; }
    const Lane& operator[](int i) const { return lane[i]; }
    operator Register() const {
        Register result;
        std::memcpy(&result, lane, sizeof result);
        return result;
    }
};
using Floats = Lanes<float, __m512>;
using Words = Lanes<uint32_t, __m512i>;
using Halves = Lanes<uint16_t, __m256i>;

using Shorts = Lanes<uint16_t, __m512i>;

// A register whose lane i is function(i).
template <class Result, class Function>
inline Result each_lane(Function function) {
    Result result;
    for (int i = 0; i < Result::kCount; ++i) result[i] = function(i);
    return result;
}

template <class Register>
inline Register load(const void* source) {
    Register result;
    std::memcpy(&result, source, sizeof result);
    return result;
}

inline void check_alignment(const void* address) {
    const auto misplaced = reinterpret_cast<uintptr_t>(address) % 64;
    if (misplaced) fail("an aligned access to an address that is no multiple of 64; bytes too far", misplaced);
}

inline bool bit(unsigned mask, int i) { return (mask >> i & 1) != 0; }

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// binary16 <-> binary32. NaN becomes quiet and keeps its upper bits; rounding is to the nearest, ties to even.
inline float widen_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, fraction = half & 0x3FF;
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    const uint32_t normal = (exponent + 112) << 23 | fraction << 13;
    const uint32_t special = 0x7F800000 | fraction << 13 | (fraction ? 0x400000 : 0);
    return as_float(sign | (exponent == 0 ? as_bits(small) : exponent == 31 ? special : normal));
}

inline uint16_t round_to_half(float value) {
    const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
    if (magnitude >= as_bits(65520.0f)) return static_cast<uint16_t>(sign | 0x7C00);
    if (magnitude < as_bits(0x1p-14f))  // subnormal: a whole number of 2^-24
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(as_float(magnitude) * 0x1p24f)));
    const uint32_t even = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | ((even >> 13) - (112 << 10)));
}

// binary32 -> bfloat16: to the nearest, ties to even; subnormals are zeros, NaN becomes quiet.
inline uint16_t round_to_bfloat(float value) {
    const uint32_t bits = as_bits(value), magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
    if (magnitude < 0x00800000) return static_cast<uint16_t>(bits >> 16 & 0x8000);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace emulated

// ---- whole registers ------------------------------------------------------------------------------------------

inline __m512 _mm512_setzero_ps() { return __m512{}; }
inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512 _mm512_set1_ps(float x) {
    return emulated::each_lane<emulated::Floats>([&](int) { return x; });
}
inline __m512i _mm512_set1_epi8(char x) {
    return emulated::each_lane<emulated::Lanes<char, __m512i>>([&](int) { return x; });
}
inline __m512i _mm512_set1_epi32(int x) {
    return emulated::each_lane<emulated::Lanes<int, __m512i>>([&](int) { return x; });
}
inline __m512i _mm512_castps_si512(__m512 a) { return emulated::load<__m512i>(&a); }
inline __m512i _mm512_broadcast_i32x4(__m128i a) {
    const emulated::Lanes<uint32_t, __m128i> x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return x[i % 4]; });
}
inline __m512 _mm512_castsi512_ps(__m512i a) { return emulated::load<__m512>(&a); }

// ---- memory ---------------------------------------------------------------------------------------------------

enum { _MM_HINT_T1 = 2, _MM_HINT_T0 = 3 };
inline void _mm_prefetch(const void*, int) {}

inline __m128i _mm_loadu_si128(const void* p) { return emulated::load<__m128i>(p); }
inline __m256i _mm256_loadu_si256(const void* p) { return emulated::load<__m256i>(p); }
inline __m512i _mm512_loadu_si512(const void* p) { return emulated::load<__m512i>(p); }
inline __m512 _mm512_loadu_ps(const void* p) { return emulated::load<__m512>(p); }
inline __m512i _mm512_load_si512(const void* p) { return emulated::check_alignment(p), _mm512_loadu_si512(p); }
inline __m512 _mm512_load_ps(const void* p) { return emulated::check_alignment(p), _mm512_loadu_ps(p); }

inline void _mm256_storeu_si256(void* p, __m256i a) { std::memcpy(p, &a, sizeof a); }
inline void _mm512_storeu_si512(void* p, __m512i a) { std::memcpy(p, &a, sizeof a); }
inline void _mm512_storeu_ps(void* p, __m512 a) { std::memcpy(p, &a, sizeof a); }
inline void _mm512_store_si512(void* p, __m512i a) { emulated::check_alignment(p), _mm512_storeu_si512(p, a); }
inline void _mm512_store_ps(void* p, __m512 a) { emulated::check_alignment(p), _mm512_storeu_ps(p, a); }

EMULATED_CALL __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
    const char* const source = static_cast<const char*>(p);
    return emulated::each_lane<emulated::Floats>(
        [&](int i) { return emulated::bit(mask, i) ? emulated::load<float>(source + 4 * i) : 0.0f; });
}
EMULATED_CALL __m512i _mm512_maskz_loadu_epi32(__mmask16 mask, const void* p) {
    return emulated::load<__m512i>(emulated::Floats(_mm512_maskz_loadu_ps(mask, p)).lane);
}
EMULATED_CALL __m256i _mm256_maskz_loadu_epi16(__mmask16 mask, const void* p) {
    const char* const source = static_cast<const char*>(p);
    return emulated::each_lane<emulated::Halves>(
        [&](int i) { return emulated::bit(mask, i) ? emulated::load<uint16_t>(source + 2 * i) : uint16_t{0}; });
}
EMULATED_CALL void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 a) {
    for (int i = 0; i < 16; ++i)
        if (emulated::bit(mask, i)) std::memcpy(static_cast<char*>(p) + 4 * i, emulated::Floats(a).lane + i, 4);
}
EMULATED_CALL void _mm256_mask_storeu_epi16(void* p, __mmask16 mask, __m256i a) {
    for (int i = 0; i < 16; ++i)
        if (emulated::bit(mask, i)) std::memcpy(static_cast<char*>(p) + 2 * i, emulated::Halves(a).lane + i, 2);
}

// ---- floats ---------------------------------------------------------------------------------------------------

enum { _MM_FROUND_TO_NEAREST_INT = 0, _MM_FROUND_TO_NEG_INF = 1, _MM_FROUND_NO_EXC = 8 };
enum { _CMP_GE_OQ = 0x1D, _CMP_GT_OQ = 0x1E };

inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
inline __m512 _mm512_max_ps(__m512 a, __m512 b) { return a > b ? a : b; }  // b if one is NaN, as the processor
inline __m512 _mm512_min_ps(__m512 a, __m512 b) { return a < b ? a : b; }
EMULATED_CALL __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    const emulated::Floats x(a), y(b), z(c);
    return emulated::each_lane<emulated::Floats>([&](int i) { return __builtin_fmaf(x[i], y[i], z[i]); });
}
EMULATED_CALL __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, -c); }
EMULATED_CALL __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(-a, b, c); }

EMULATED_CALL __m512 _mm512_roundscale_ps(__m512 a, int mode) {
    if (mode != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) emulated::fail("roundscale_ps has no such mode", mode);
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Floats>([&](int i) { return __builtin_nearbyintf(x[i]); });
}
// a * 2^floor(b), rounded once: the product is exact in double.
EMULATED_CALL __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
    const emulated::Floats x(a), y(b);
    return emulated::each_lane<emulated::Floats>([&](int i) {
        const float exponent = __builtin_floorf(y[i] < -300 ? -300.0f : y[i] > 300 ? 300.0f : y[i]);
        if (exponent != exponent) return exponent;
        const uint64_t bits = static_cast<uint64_t>(static_cast<int>(exponent) + 1023) << 52;
        double power;
        std::memcpy(&power, &bits, sizeof power);
        return static_cast<float>(x[i] * power);
    });
}
EMULATED_CALL __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int relation) {
    if (relation != _CMP_GE_OQ && relation != _CMP_GT_OQ) emulated::fail("cmp_ps_mask has no such relation", relation);
    const emulated::Floats x(a), y(b);
    unsigned mask = 0;
    for (int i = 0; i < 16; ++i)
        mask |= static_cast<unsigned>(relation == _CMP_GE_OQ ? x[i] >= y[i] : x[i] > y[i]) << i;
    return static_cast<__mmask16>(mask);
}
EMULATED_CALL __m512 _mm512_maskz_mov_ps(__mmask16 mask, __m512 a) {
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Floats>([&](int i) { return emulated::bit(mask, i) ? x[i] : 0.0f; });
}

EMULATED_CALL __m512 _mm512_maskz_scalef_ps(__mmask16 mask, __m512 a, __m512 b) {
    return _mm512_maskz_mov_ps(mask, _mm512_scalef_ps(a, b));
}
EMULATED_CALL __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b) {
    const emulated::Floats x(a), y(b);
    return emulated::each_lane<emulated::Floats>([&](int i) { return emulated::bit(mask, i) ? y[i] : x[i]; });
}
// a - floor(a)
EMULATED_CALL __m512 _mm512_reduce_ps(__m512 a, int mode) {
    if (mode != (_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)) emulated::fail("reduce_ps has no such mode", mode);
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Floats>(
        [&](int i) { return std::isinf(x[i]) ? 0.0f : x[i] - __builtin_floorf(x[i]); });
}
inline float _mm512_cvtss_f32(__m512 a) { return emulated::Floats(a)[0]; }

// Both halves onto each other until one lane is left: the order in which compilers make it.
EMULATED_CALL float _mm512_reduce_add_ps(__m512 a) {
    emulated::Floats x(a);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) x[i] += x[i + width];
    return x[0];
}
EMULATED_CALL float _mm512_reduce_max_ps(__m512 a) {
    emulated::Floats x(a);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) x[i] = x[i + width] > x[i] ? x[i + width] : x[i];
    return x[0];
}

// ---- integers -------------------------------------------------------------------------------------------------

inline __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
inline __m512i _mm512_andnot_si512(__m512i a, __m512i b) { return ~a & b; }
inline __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
inline __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
    const emulated::Words x(a), y(b);
    return emulated::each_lane<emulated::Words>([&](int i) { return x[i] + y[i]; });
}
EMULATED_CALL __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
    const emulated::Words x(a), y(b);
    return emulated::each_lane<emulated::Words>([&](int i) { return x[i] - y[i]; });
}
EMULATED_CALL int _mm512_reduce_add_epi32(__m512i a) {
    uint32_t sum = 0;
    for (const uint32_t lane : emulated::Words(a).lane) sum += lane;
    return static_cast<int>(sum);
}
EMULATED_CALL __mmask16 _mm512_cmpgt_epi32_mask(__m512i a, __m512i b) {
    const emulated::Lanes<int32_t, __m512i> x(a), y(b);
    unsigned mask = 0;
    for (int i = 0; i < 16; ++i) mask |= static_cast<unsigned>(x[i] > y[i]) << i;
    return static_cast<__mmask16>(mask);
}
// Lanes of a and of b in turn, of the lower or the upper half of each 128 bits.
template <class Lane>
__m512i emulated_unpack(__m512i a, __m512i b, int first) {
    const emulated::Lanes<Lane, __m512i> x(a), y(b);
    constexpr int kLanes = 16 / sizeof(Lane);
    return emulated::each_lane<emulated::Lanes<Lane, __m512i>>([&](int i) {
        const int from = i / kLanes * kLanes + first * kLanes / 2 + i % kLanes / 2;
        return i % 2 ? y[from] : x[from];
    });
}
EMULATED_CALL __m512i _mm512_unpacklo_epi32(__m512i a, __m512i b) { return emulated_unpack<uint32_t>(a, b, 0); }
EMULATED_CALL __m512i _mm512_unpackhi_epi32(__m512i a, __m512i b) { return emulated_unpack<uint32_t>(a, b, 1); }
EMULATED_CALL __m512i _mm512_unpacklo_epi64(__m512i a, __m512i b) { return emulated_unpack<uint64_t>(a, b, 0); }
EMULATED_CALL __m512i _mm512_unpackhi_epi64(__m512i a, __m512i b) { return emulated_unpack<uint64_t>(a, b, 1); }
// Two 128-bit lanes of a, then two of b, whose numbers are two bits each of `order`.
EMULATED_CALL __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int order) {
    const emulated::Words x(a), y(b);
    return emulated::each_lane<emulated::Words>([&](int i) {
        const int from = (order >> i / 4 * 2 & 3) * 4 + i % 4;
        return i < 8 ? x[from] : y[from];
    });
}
inline __m256i _mm512_castsi512_si256(__m512i a) { return emulated::load<__m256i>(&a); }
inline __m256i _mm512_extracti64x4_epi64(__m512i a, int half) {
    return emulated::load<__m256i>(reinterpret_cast<const char*>(&a) + 32 * half);
}
inline __m256i _mm256_set1_epi16(short x) {
    return emulated::each_lane<emulated::Lanes<short, __m256i>>([&](int) { return x; });
}
// Bit i of `table` is what becomes of the bits whose number is i, a's being the highest.
EMULATED_CALL __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {
    __m512i result{};
    for (int i = 0; i < 8; ++i)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}
EMULATED_CALL __m512i _mm512_permutex2var_epi16(__m512i a, __m512i order, __m512i b) {
    const emulated::Shorts x(a), place(order), y(b);
    return emulated::each_lane<emulated::Shorts>(
        [&](int i) { return place[i] & 32 ? y[place[i] & 31] : x[place[i] & 31]; });
}
EMULATED_CALL __m512i _mm512_permutexvar_epi32(__m512i order, __m512i a) {
    const emulated::Words place(order), x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return x[place[i] & 15]; });
}
EMULATED_CALL __m512i _mm512_permutexvar_epi64(__m512i order, __m512i a) {
    const emulated::Lanes<uint64_t, __m512i> place(order), x(a);
    return emulated::each_lane<emulated::Lanes<uint64_t, __m512i>>([&](int i) { return x[place[i] & 7]; });
}
EMULATED_CALL __m512i _mm512_shuffle_epi8(__m512i a, __m512i order) {
    const emulated::Lanes<uint8_t, __m512i> x(a), place(order);
    return emulated::each_lane<emulated::Lanes<uint8_t, __m512i>>(
        [&](int i) { return place[i] & 0x80 ? uint8_t{0} : x[i / 16 * 16 + (place[i] & 15)]; });
}
EMULATED_CALL __m512i _mm512_sub_epi8(__m512i a, __m512i b) {
    const emulated::Lanes<uint8_t, __m512i> x(a), y(b);
    return emulated::each_lane<emulated::Lanes<uint8_t, __m512i>>(
        [&](int i) { return static_cast<uint8_t>(x[i] - y[i]); });
}
EMULATED_CALL __m512i _mm512_sub_epi16(__m512i a, __m512i b) {
    const emulated::Shorts x(a), y(b);
    return emulated::each_lane<emulated::Shorts>([&](int i) { return static_cast<uint16_t>(x[i] - y[i]); });
}
EMULATED_CALL __m512i _mm512_slli_epi32(__m512i a, unsigned count) {
    const emulated::Words x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return count < 32 ? x[i] << count : 0; });
}
EMULATED_CALL __m512i _mm512_srli_epi32(__m512i a, unsigned count) {
    const emulated::Words x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return count < 32 ? x[i] >> count : 0; });
}
inline __m512i _mm512_set1_epi16(short x) {
    return emulated::each_lane<emulated::Lanes<short, __m512i>>([&](int) { return x; });
}
EMULATED_CALL __m512i _mm512_slli_epi16(__m512i a, unsigned count) {
    const emulated::Shorts x(a);
    return emulated::each_lane<emulated::Shorts>([&](int i) { return static_cast<uint16_t>(count < 16 ? x[i] << count : 0); });
}
EMULATED_CALL __m512i _mm512_srli_epi16(__m512i a, unsigned count) {
    const emulated::Shorts x(a);
    return emulated::each_lane<emulated::Shorts>([&](int i) { return static_cast<uint16_t>(count < 16 ? x[i] >> count : 0); });
}
EMULATED_CALL __m512i _mm512_srai_epi16(__m512i a, unsigned count) {
    const emulated::Lanes<int16_t, __m512i> x(a);
    return emulated::each_lane<emulated::Lanes<int16_t, __m512i>>(
        [&](int i) { return static_cast<int16_t>(x[i] >> (count < 16 ? count : 15)); });
}
inline __m256i _mm256_and_si256(__m256i a, __m256i b) { return a & b; }
EMULATED_CALL __m256i _mm256_cvtepu8_epi16(__m128i a) {
    const emulated::Lanes<uint8_t, __m128i> x(a);
    return emulated::each_lane<emulated::Halves>([&](int i) { return uint16_t{x[i]}; });
}
EMULATED_CALL __m256i _mm256_slli_epi16(__m256i a, unsigned count) {
    const emulated::Halves x(a);
    return emulated::each_lane<emulated::Halves>([&](int i) { return static_cast<uint16_t>(count < 16 ? x[i] << count : 0); });
}
EMULATED_CALL __m256i _mm256_srai_epi16(__m256i a, unsigned count) {
    const emulated::Lanes<int16_t, __m256i> x(a);
    return emulated::each_lane<emulated::Lanes<int16_t, __m256i>>(
        [&](int i) { return static_cast<int16_t>(x[i] >> (count < 16 ? count : 15)); });
}
// Of an index the lowest four bits count.
EMULATED_CALL __m512 _mm512_permutexvar_ps(__m512i order, __m512 a) {
    const emulated::Words place(order);
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Floats>([&](int i) { return x[static_cast<int>(place[i] & 15)]; });
}
EMULATED_CALL __m512i _mm512_srlv_epi32(__m512i a, __m512i counts) {
    const emulated::Words x(a), count(counts);
    return emulated::each_lane<emulated::Words>([&](int i) { return count[i] < 32 ? x[i] >> count[i] : 0; });
}
EMULATED_CALL __m512i _mm512_srai_epi32(__m512i a, unsigned count) {
    const emulated::Lanes<int32_t, __m512i> x(a);
    return emulated::each_lane<emulated::Lanes<int32_t, __m512i>>([&](int i) { return x[i] >> (count < 32 ? count : 31); });
}
// Four products of an unsigned and a signed byte are added to each sum, which wraps around.
EMULATED_CALL __m512i _mm512_dpbusd_epi32(__m512i sums, __m512i a, __m512i b) {
    const emulated::Words sum(sums);
    const emulated::Lanes<uint8_t, __m512i> x(a);
    const emulated::Lanes<int8_t, __m512i> y(b);
    return emulated::each_lane<emulated::Words>([&](int i) {
        int dot = 0;
        for (int j = 4 * i; j < 4 * i + 4; ++j) dot += x[j] * y[j];
        return sum[i] + static_cast<uint32_t>(dot);
    });
}

// Two products of signed words are added to each sum, which wraps around.
EMULATED_CALL __m512i _mm512_dpwssd_epi32(__m512i sums, __m512i a, __m512i b) {
    const emulated::Words sum(sums);
    const emulated::Lanes<int16_t, __m512i> x(a), y(b);
    return emulated::each_lane<emulated::Words>([&](int i) {
        uint32_t dot = sum[i];
        for (int j = 2 * i; j < 2 * i + 2; ++j) dot += static_cast<uint32_t>(x[j] * y[j]);
        return dot;
    });
}

// ---- conversions ----------------------------------------------------------------------------------------------

EMULATED_CALL __m512 _mm512_cvtepi32_ps(__m512i a) {
    const emulated::Lanes<int32_t, __m512i> x(a);
    return emulated::each_lane<emulated::Floats>([&](int i) { return static_cast<float>(x[i]); });
}
// To the nearest, ties to even; what does not fit is the smallest integer.
EMULATED_CALL __m512i _mm512_cvtps_epi32(__m512 a) {
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Lanes<int32_t, __m512i>>([&](int i) {
        const float rounded = __builtin_nearbyintf(x[i]);
        return rounded >= -0x1p31f && rounded < 0x1p31f ? static_cast<int32_t>(rounded) : INT32_MIN;
    });
}
EMULATED_CALL __m512i _mm512_cvtepu16_epi32(__m256i a) {
    const emulated::Halves x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return uint32_t{x[i]}; });
}
EMULATED_CALL __m512i _mm512_cvtepu8_epi32(__m128i a) {
    const emulated::Lanes<uint8_t, __m128i> x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return uint32_t{x[i]}; });
}
EMULATED_CALL __m512i _mm512_cvtepi8_epi32(__m128i a) {
    const emulated::Lanes<int8_t, __m128i> x(a);
    return emulated::each_lane<emulated::Words>([&](int i) { return static_cast<uint32_t>(int32_t{x[i]}); });
}
EMULATED_CALL __m512 _mm512_cvtph_ps(__m256i a) {
    const emulated::Halves x(a);
    return emulated::each_lane<emulated::Floats>([&](int i) { return emulated::widen_half(x[i]); });
}
EMULATED_CALL __m256i _mm512_cvtps_ph(__m512 a, int mode) {
    if (mode != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) emulated::fail("cvtps_ph has no such mode", mode);
    const emulated::Floats x(a);
    return emulated::each_lane<emulated::Halves>([&](int i) { return emulated::round_to_half(x[i]); });
}

EMULATED_CALL __m512bh _mm512_cvtne2ps_pbh(__m512 upper, __m512 lower) {
    const emulated::Floats x(upper), y(lower);
    return (__m512bh)(__m512i)emulated::each_lane<emulated::Shorts>(
        [&](int i) { return emulated::round_to_bfloat(i < 16 ? y[i] : x[i - 16]); });
}

#undef __AVX2__  // sources that also have a branch for it would use intrinsics that are not here

#include "tiles.h"
