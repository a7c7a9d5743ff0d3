// C entry points of the measurements in linear_limits.cpp: every thread of the team takes part.
#include <atomic>

#include "linear_limits.h"
#include "thread_team.h"

extern "C" int measure_read(const void* memory, int64_t bytes, void*) {
    using namespace parlor;
    if (!memory) return PARLOR_ERROR_POINTER;
    if (bytes < 0) return PARLOR_ERROR_SIZE;
    std::atomic<uint64_t> sum{0};  // keeps the reading from being left out
    team().run([&](int part, int num_parts) {
        const int64_t share = bytes / num_parts;
        sum ^= PARLOR_PICK(read_memory)(static_cast<const char*>(memory) + part * share, share);
    });
    return PARLOR_OK;
}

extern "C" int measure_products(int64_t rounds, int64_t* operations, void*) {
    using namespace parlor;
    if (!operations) return PARLOR_ERROR_POINTER;
    if (rounds < 0) return PARLOR_ERROR_SIZE;
    std::atomic<int64_t> done{0};
    team().run([&](int, int) {
#if PARLOR_BUILT_ISA >= 3
        if (selected_isa() >= Isa::kAmx) {
            done += amx::multiply_registers(rounds);
            return;
        }
#endif
        done += PARLOR_PICK(multiply_registers)(rounds);
    });
    *operations = done;
    return PARLOR_OK;
}
