# fastltc::shared and fastltc::static are inference with libfastltc, for C and C++.
include(${CMAKE_CURRENT_LIST_DIR}/fastltcTargets.cmake)
