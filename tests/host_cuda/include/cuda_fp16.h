// Half precision on the CPU: the functions of NVIDIA's header of this name that the kernels use, each rounding once.
#pragma once

#include <cmath>

#include "host_cuda.h"

struct alignas(2) __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

inline float __half2float(half h) {
    const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16, magnitude = h.bits & 0x7fff;
    if (magnitude >= 0x7c00) return host_cuda_bits<float>(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x0400) return host_cuda_bits<float>(sign | ((magnitude << 13) + (112u << 23)));
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -value : value;
}
// To the nearest, ties to even: a double whose last bit is worth what the half's last bit is gets added and taken away.
inline half __double2half(double value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    value = std::fabs(value);
    if (value != value) return {0x7fff};
    if (value >= 65520.0) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (value < 0x1p-14) return {static_cast<uint16_t>(sign | static_cast<int>(value * 0x1p24 + 0x1p52 - 0x1p52))};
    const uint64_t exponent = host_cuda_bits<uint64_t>(value) >> 52;
    const double step = host_cuda_bits<double>((exponent + 42) << 52);
    const uint64_t rounded = host_cuda_bits<uint64_t>(value + step - step);
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>((rounded >> 42) - ((1023 - 15) << 10)))};
}
inline half __float2half_rn(float value) { return __double2half(value); }
inline half __float2half(float value) { return __double2half(value); }
inline half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(half h) { return h.bits; }
inline half2 __half2half2(half h) { return {h, h}; }
inline half2 __halves2half2(half a, half b) { return {a, b}; }
inline half __low2half(half2 h) { return h.x; }
inline half __high2half(half2 h) { return h.y; }
inline float __low2float(half2 h) { return __half2float(h.x); }
inline float __high2float(half2 h) { return __half2float(h.y); }
inline half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
inline half2 __float2half2_rn(float a) { return __floats2half2_rn(a, a); }
inline float2 __half22float2(half2 h) { return {__low2float(h), __high2float(h)}; }
inline half __hsub(half a, half b) { return __double2half(double(__half2float(a)) - __half2float(b)); }
inline half __hneg(half a) { return {static_cast<uint16_t>(a.bits ^ 0x8000)}; }
inline half2 __hadd2(half2 a, half2 b) {
    return {__double2half(double(__half2float(a.x)) + __half2float(b.x)),
            __double2half(double(__half2float(a.y)) + __half2float(b.y))};
}
inline half2 __hsub2(half2 a, half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
inline half2 __hmul2(half2 a, half2 b) {
    return {__double2half(double(__half2float(a.x)) * __half2float(b.x)),
            __double2half(double(__half2float(a.y)) * __half2float(b.y))};
}
inline half2 __hfma2(half2 a, half2 b, half2 c) {
    return {__double2half(double(__half2float(a.x)) * __half2float(b.x) + __half2float(c.x)),
            __double2half(double(__half2float(a.y)) * __half2float(b.y) + __half2float(c.y))};
}
