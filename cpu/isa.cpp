// The instruction set in use: the best that the machine has and the library was built for, or the choice of tests.
#include "isa.h"

#include <algorithm>
#include <atomic>

namespace parlor {
namespace {

std::atomic<int> forced{-1};

}  // namespace

Isa best_isa() {
    static const Isa best = std::min(detect_isa(), static_cast<Isa>(PARLOR_BUILT_ISA));
    return best;
}

Isa selected_isa() {
    const int isa = forced.load(std::memory_order_relaxed);
    return isa < 0 ? best_isa() : static_cast<Isa>(isa);
}

}  // namespace parlor

extern "C" int supported_isas(void) { return (2 << static_cast<int>(parlor::best_isa())) - 1; }

extern "C" int current_isa(void) { return static_cast<int>(parlor::selected_isa()); }

extern "C" int force_isa(int isa) {
    if (isa < -1 || isa > static_cast<int>(parlor::best_isa())) return PARLOR_ERROR_ISA;
    parlor::forced.store(isa);
    return PARLOR_OK;
}
