/* The scenes; README.md says which protocol each is of. */
#ifndef SCENES_H
#define SCENES_H

#include "explore.h"

/* scenes_leaf.c */
extern const struct scene scene_promote, scene_merge, scene_range;
/* scenes_log.c */
extern const struct scene scene_log, scene_checkpoint;
/* scenes_past.c */
extern const struct scene scene_versions, scene_skew, scene_both;

#endif
