// What cpu/isa_detect.cpp answers, for a library whose AVX-512 and AMX code is emulated: everything is there.
#include "../../cpu/isa.h"

parlor::Isa parlor::detect_isa() { return Isa::kAmx; }
