// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Warnings and bugs of the tree's own code, with their texts. */
#include <linux/bug.h>
#include <linux/kernel.h>
#include "k.h"

extern struct bug_entry __start___bug_table[] __attribute__((weak));
extern struct bug_entry __stop___bug_table[] __attribute__((weak));

static const char *relative(const int *displacement)
{
	return (const char *)displacement + *displacement;
}

static void tell(const struct bug_entry *bug, const char *event, const char *text)
{
	kface_event(event);
	kface_text("file", relative(&bug->file_disp));
	kface_number("line", bug->line);
	kface_text("text", text);
	kface_event_end();
}

int k_bug(unsigned long ip)
{
	const struct bug_entry *bug;

	for (bug = __start___bug_table; bug < __stop___bug_table; bug++) {
		if ((unsigned long)relative(&bug->bug_addr_disp) != ip)
			continue;
		tell(bug, bug->flags & BUGFLAG_WARNING ? "warn" : "bug", "");
		return bug->flags & BUGFLAG_WARNING ? 1 : 2;
	}
	return 0;
}

/* A warning with a text is a call with its entry first, then the arguments of the text. */
void __SCT__WARN_trap(struct bug_entry *bug, ...);
void __SCT__WARN_trap(struct bug_entry *bug, ...)
{
	char text[512];
	va_list args;

	va_start(args, bug);
	k_format(text, sizeof(text), relative(&bug->format_disp), args);
	va_end(args);
	tell(bug, "warn", text);
}
