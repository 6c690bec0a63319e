namespace fastltc::cpu::FASTLTC_ISA {

int ltc_placeholder() { return 0; }

}  // namespace fastltc::cpu::FASTLTC_ISA
