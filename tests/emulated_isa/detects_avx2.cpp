// In place of cpu/isa_detect.cpp: a machine whose best set is this one, whatever it is.
#include "../../cpu/isa.h"

unsigned parlor::detect_isas() { return (2 << PARLOR_ISA_AVX2) - 1; }
