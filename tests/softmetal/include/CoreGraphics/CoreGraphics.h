// The one thing of CoreGraphics that the Metal backend refers to.
#pragma once
#import <Foundation/Foundation.h>

#include "softmetal/annotations.h"

typedef struct {
  double x, y, width, height;
} CGRect;

MTL_EXTERN const CGRect CGRectNull;
