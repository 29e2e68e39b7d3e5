from bokeh.io import curdoc
curdoc().add_root(x)
