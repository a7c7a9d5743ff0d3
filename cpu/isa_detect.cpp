// Instruction set detection by CPUID and XGETBV, and the AMX permission; on ARM by what the system tells.
#include "isa.h"

#if PARLOR_X86
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if PARLOR_X86 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace parlor {

#if PARLOR_X86
namespace {

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
}

bool bit(unsigned word, int index) { return (word >> index) & 1u; }

// XCR0: which register files the operating system saves (XGETBV is part of OSXSAVE, checked by the caller).
unsigned long long saved_state() {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux gives a process the 8 KiB of tile registers only when asked (Documentation/arch/x86/xstate.rst).
bool request_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

}  // namespace
#elif defined(__aarch64__)
namespace {

#if defined(__linux__)  // Documentation/arch/arm64/elf_hwcaps.rst
bool has_dot_products() { return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; }       // HWCAP_ASIMDDP
bool has_matrix_products() { return (getauxval(AT_HWCAP2) & (1UL << 13)) != 0; }   // HWCAP2_I8MM
#elif defined(__APPLE__)
bool has(const char* feature) {
    int value = 0;
    size_t bytes = sizeof value;
    return sysctlbyname(feature, &value, &bytes, nullptr, 0) == 0 && value != 0;
}
bool has_dot_products() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_matrix_products() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dot_products() { return false; }
bool has_matrix_products() { return false; }
#endif

}  // namespace
#endif

unsigned detect_isas() {
    unsigned isas = 1 << PARLOR_ISA_PLAIN;
#if PARLOR_X86
    const Registers basic = cpuid(1, 0);
    const bool has_avx = bit(basic.c, 28) && bit(basic.c, 12) && bit(basic.c, 29) && bit(basic.c, 27);
    if (!has_avx || (saved_state() & 0x6) != 0x6) return isas;           // AVX, FMA, F16C, OSXSAVE; XMM and YMM saved
    const Registers extended = cpuid(7, 0), more = extended.a >= 1 ? cpuid(7, 1) : Registers{};
    if (!bit(extended.b, 5)) return isas;                                // AVX2
    isas |= 1 << PARLOR_ISA_AVX2;
    if (bit(more.a, 4)) isas |= 1 << PARLOR_ISA_AVX_VNNI;
    const bool has_avx512 = bit(extended.b, 16) && bit(extended.b, 17) && bit(extended.b, 30) &&
                            bit(extended.b, 31) && bit(extended.c, 11);  // F, DQ, BW, VL, VNNI
    if (!has_avx512 || (saved_state() & 0xE0) != 0xE0) return isas;
    isas |= 1 << PARLOR_ISA_AVX512;
    const bool has_amx = bit(extended.d, 22) && bit(extended.d, 24) && bit(extended.d, 25) &&
                         bit(more.a, 5);                                 // AMX bf16, tile, int8; AVX-512 BF16
    if (has_amx && (saved_state() & 0x60000) == 0x60000 && request_tiles()) isas |= 1 << PARLOR_ISA_AMX;
#elif defined(__aarch64__)
    if (!has_dot_products()) return isas;
    isas |= 1 << PARLOR_ISA_DOTPROD;
    if (has_matrix_products()) isas |= 1 << PARLOR_ISA_I8MM;
#endif
    return isas;
}

}  // namespace parlor
