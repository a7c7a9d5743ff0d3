// The instruction set in use: the best that the machine has and the library was built for, or the choice of tests.
#include "isa.h"

#include <atomic>

namespace parlor {
namespace {

std::atomic<int> forced{-1};

unsigned usable_isas() {
    static const unsigned isas = detect_isas() & PARLOR_BUILT_ISAS;
    return isas;
}

Isa best_isa() {
    static const Isa best = [] {
        int isa = 0;
        while (usable_isas() >> (isa + 1)) ++isa;
        return static_cast<Isa>(isa);
    }();
    return best;
}

}  // namespace

Isa selected_isa() {
    const int isa = forced.load(std::memory_order_relaxed);
    return isa < 0 ? best_isa() : static_cast<Isa>(isa);
}

}  // namespace parlor

extern "C" int supported_isas(void) { return static_cast<int>(parlor::usable_isas()); }

extern "C" int current_isa(void) { return static_cast<int>(parlor::selected_isa()); }

extern "C" int force_isa(int isa) {
    if (isa < -1 || isa > PARLOR_ISA_I8MM || (isa >= 0 && !(parlor::usable_isas() >> isa & 1))) return PARLOR_ERROR_ISA;
    parlor::forced.store(isa);
    return PARLOR_OK;
}
