#include "standin.h"

/* Defect D2: what can never come is waited for. */
void standin_handle(void)
{
	while (!standin_look())
		;
}
