#ifndef XE_SVM_H
#define XE_SVM_H

#define STANDIN_VR 7
/* Whether the map has a member of that name. */
#define STANDIN_HAS_UNUSED 0

struct standin_map {
	int vr;
};

extern struct standin_map standin_map;

#endif
