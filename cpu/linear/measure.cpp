// C entry points of the measurements in limits.cpp, shared among the threads as the operations are.
#include <atomic>

#include "limits.h"
#include "thread_team.h"

extern "C" int measure_read(const void* memory, int64_t bytes, void*) {
    using namespace parlor;
    if (!memory) return PARLOR_ERROR_POINTER;
    if (bytes < 0) return PARLOR_ERROR_SIZE;
    std::atomic<uint64_t> sum{0};  // keeps the reading from being left out
    constexpr int64_t kPieceBytes = int64_t{4} << 20;
    team().parallel_for(bytes, [&](int64_t begin, int64_t end, int) {
        sum ^= PARLOR_PICK(read_memory)(static_cast<const char*>(memory) + begin, end - begin);
    }, kPieceBytes);
    return PARLOR_OK;
}

extern "C" int measure_products(int64_t rounds, int64_t* operations, void*) {
    using namespace parlor;
    if (!operations) return PARLOR_ERROR_POINTER;
    if (rounds < 0) return PARLOR_ERROR_SIZE;
    std::atomic<int64_t> done{0};
    constexpr int64_t kPieceRounds = 2000;
    team().parallel_for(rounds, [&](int64_t begin, int64_t end, int) {
#if PARLOR_BUILT_AMX
        if (selected_isa() == Isa::kAmx) {
            done += amx::multiply_registers(end - begin);
            return;
        }
#endif
#if PARLOR_BUILT_AVX_VNNI
        if (selected_isa() == Isa::kAvxVnni) {
            done += avx_vnni::multiply_registers(end - begin);
            return;
        }
#endif
#if PARLOR_BUILT_I8MM
        if (selected_isa() == Isa::kI8mm) {
            done += i8mm::multiply_registers(end - begin);
            return;
        }
#endif
#if PARLOR_BUILT_DOTPROD
        if (selected_isa() == Isa::kDotprod) {
            done += dotprod::multiply_registers(end - begin);
            return;
        }
#endif
        done += PARLOR_PICK(multiply_registers)(end - begin);
    }, kPieceRounds);
    *operations = done;
    return PARLOR_OK;
}
