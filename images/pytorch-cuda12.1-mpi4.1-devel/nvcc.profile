TOP              = $(_HERE_)/..

NVVM_BRANCH      = nvvm

LD_LIBRARY_PATH += $(TOP)/lib64:
PATH            += $(TOP)/$(NVVM_BRANCH)/bin:$(_HERE_):

INCLUDES        +=  "-I$(TOP)/include" $(_SPACE_)

LIBRARIES        =+ $(_SPACE_) "-L$(TOP)/lib64/stubs" "-L$(TOP)/lib64"

CUDAFE_FLAGS    +=
PTXAS_FLAGS     +=
