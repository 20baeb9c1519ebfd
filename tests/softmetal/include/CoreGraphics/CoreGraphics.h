// The one thing of CoreGraphics that the Metal backend refers to.
#pragma once
#import <Foundation/Foundation.h>

typedef struct {
  double x, y, width, height;
} CGRect;

extern "C" const CGRect CGRectNull;
