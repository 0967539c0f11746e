// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Printing. Errors and warnings of the driver are events; notes and debug texts are events of their own, which only
 * `explain` shows. libc formats; the kernel's own pointer formats are brought to what libc knows before.
 */
#include <linux/device.h>
#include <linux/printk.h>
#include <drm/drm_print.h>
#include "k.h"

int vsnprintf(char *, size_t, const char *, va_list);
char *strerrorname_np(int);

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int with(char *out, size_t size, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(out, size, format, args);
	va_end(args);
	return length;
}

static int pointer(char *out, size_t size, char kind, const void *value)
{
	const struct va_format *nested = value;
	va_list args;
	int length;

	if (kind == 'V') {
		va_copy(args, *nested->va);
		length = k_format(out, size, nested->fmt, args);
		va_end(args);
		return length;
	}
	if (kind == 'e' && IS_ERR(value)) {
		const char *name = strerrorname_np(-PTR_ERR(value));

		return with(out, size, "-%s", name ? name : "E?");
	}
	return with(out, size, "%p", value);
}

int k_format(char *out, size_t size, const char *format, va_list args)
{
	size_t used = 0;

	while (*format && used + 1 < size) {
		const char *end = format + 1;
		int wide = 0;

		if (*format != '%' || format[1] == '%') {
			out[used++] = *format;
			format += *format == '%' ? 2 : 1;
			continue;
		}
		while (*end && !is_letter(*end) && *end != '*')
			end++;
		for (; *end == 'l' || *end == 'h' || *end == 'z' || *end == 't'; end++)
			wide += *end == 'l' || *end == 'z' || *end == 't';
		if (*end == '*') {
			out[used++] = '*';
			break;
		}
		if (*end == 'p') {
			used += pointer(out + used, size - used, end[1], va_arg(args, void *));
			for (end++; is_letter(*end); end++)
				;
		} else if (*end == 's') {
			const char *text = va_arg(args, const char *);

			used += with(out + used, size - used, "%s", text ? text : "(null)");
			end++;
		} else {
			unsigned long value = wide ? va_arg(args, unsigned long) : va_arg(args, unsigned int);
			char copy[32];
			size_t length = min_t(size_t, end + 1 - format, sizeof(copy) - 1);

			memcpy(copy, format, length);
			copy[length] = 0;
			used += with(out + used, size - used, copy, value);
			end++;
		}
		used = min_t(size_t, used, size - 1);
		format = end;
	}
	out[used] = 0;
	return used;
}

static void say(const char *event, const char *format, va_list args)
{
	char text[512];

	if (!kface_is_told(event))
		return;
	k_format(text, sizeof(text), format, args);
	kface_event(event);
	kface_text("text", text);
	kface_event_end();
}

#define SAYS(name, event, ...)				\
	void name(__VA_ARGS__, const char *format, ...)	\
	{						\
		va_list args;				\
							\
		va_start(args, format);			\
		say(event, format, args);		\
		va_end(args);				\
	}

SAYS(_dev_err, "error", const struct device *dev)
SAYS(_dev_warn, "error", const struct device *dev)
SAYS(_dev_info, "note", const struct device *dev)
SAYS(_dev_notice, "note", const struct device *dev)
SAYS(__drm_dev_dbg, "debug", struct _ddebug *desc, const struct device *dev, enum drm_debug_category category)

int _printk(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("note", format, args);
	va_end(args);
	return 0;
}

void __drm_err(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("error", format, args);
	va_end(args);
}

const char *dev_driver_string(const struct device *dev)
{
	return "xe";
}

/* Sizes in the driver's texts. */
int k_size(u64 size, u64 unit, int units, char *out, int bytes) __asm__("string_get_size");
int k_size(u64 size, u64 unit, int units, char *out, int bytes)
{
	return with(out, bytes, "%llu KiB", size * unit >> 10);
}
